/**
 * The service worker: it keeps the page for offline use, and isolates it so that threads can share memory.
 *
 * Isolation begins with a page that the service worker answered, so the very first visit loads twice.
 */

import { recall, remember } from "./remembered.js";

const RELOADED = "glm-reloaded";
const WAIT_MS = 10_000;
const MOST_TRIES = 3; // Chromium may show a page an older state of its session storage, from before it was isolated

/** Resolves when the page is as it can be; what is not so is said. */
export async function isolatePage() {
  if (!("serviceWorker" in navigator)) {
    return "this page does not come by https, so it neither works offline nor uses threads";
  }
  try {
    await navigator.serviceWorker.register("service_worker.js");
    await withTimeout(takeControl());
  } catch {
    return "this browser refuses the service worker, so the page does not work offline";
  }
  if (crossOriginIsolated) {
    remember("sessionStorage", RELOADED, "0");
    return "";
  }
  const tries = Number(recall("sessionStorage", RELOADED));
  // What cannot be counted would never end.
  const mayTry = tries < MOST_TRIES && remember("sessionStorage", RELOADED, String(tries + 1));
  if (!mayTry) return "this browser does not isolate the page, so one thread computes";
  location.replace(location.href.split("#")[0]); // reload() would pass the service worker by once more
  return new Promise(() => {}); // the page goes away
}

/** A page that was loaded past the service worker, as by Shift and reload, asks it to come. */
async function takeControl() {
  if (navigator.serviceWorker.controller) return;
  const taken = new Promise((resolve) => {
    navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
  });
  (await navigator.serviceWorker.ready).active?.postMessage("claim");
  await taken;
}

/** @param {Promise<unknown>} promise */
function withTimeout(promise) {
  return Promise.race([promise, new Promise((_, reject) => setTimeout(reject, WAIT_MS, new Error("too slow")))]);
}
