/**
 * Starts the service worker, which caches the page for offline use and isolates it for threads.
 *
 * A page is isolated only if it came from the service worker, so the first visit loads the page twice.
 */

import { recall, remember } from "./remembered.js";

const RELOADED = "glm-reloaded";
const WAIT_MS = 10_000;
const MAX_RELOADS = 3; // more than one, because Chromium may show an older state of the session storage after a reload

/** Isolate the page. Returns a message about what does not work, or an empty string. */
export async function isolatePage() {
  if (!("serviceWorker" in navigator)) {
    return "this page was not loaded over https, so it does not work offline and uses one thread";
  }
  try {
    await navigator.serviceWorker.register("service_worker.js");
    await withTimeout(takeControl());
  } catch {
    return "this browser does not allow the service worker, so the page does not work offline";
  }
  if (crossOriginIsolated) {
    remember("sessionStorage", RELOADED, "0");
    return "";
  }
  const tries = Number(recall("sessionStorage", RELOADED));
  // Without a counter the page could reload forever.
  const mayTry = tries < MAX_RELOADS && remember("sessionStorage", RELOADED, String(tries + 1));
  if (!mayTry) return "this browser does not isolate the page, so it uses one thread";
  location.replace(location.href.split("#")[0]); // reload() would bypass the service worker again
  return new Promise(() => {}); // the page is replaced
}

/** Ask the service worker to control this page, if it was loaded without it (for example by Shift and Reload). */
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
