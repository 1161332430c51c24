/**
 * The service worker: it keeps the page for offline use, and isolates it so that threads can share memory.
 *
 * Isolation begins with a page that the service worker answered, so the very first visit loads twice.
 */

const RELOADED = "glm-reloaded";
const WAIT_MS = 10_000;

/** Resolves when the page is as it can be; what is not so is said. */
export async function isolatePage() {
  if (!("serviceWorker" in navigator)) {
    return "this page does not come by https, so it neither works offline nor uses threads";
  }
  try {
    await navigator.serviceWorker.register("service_worker.js");
    await withTimeout(waitForControl());
  } catch {
    return "this browser refuses the service worker, so the page does not work offline";
  }
  if (crossOriginIsolated) {
    sessionStorage.removeItem(RELOADED);
    return "";
  }
  if (sessionStorage.getItem(RELOADED)) return "this browser does not isolate the page, so one thread computes";
  sessionStorage.setItem(RELOADED, "yes");
  location.reload();
  return new Promise(() => {}); // the page goes away
}

function waitForControl() {
  if (navigator.serviceWorker.controller) return Promise.resolve();
  return new Promise((resolve) => {
    navigator.serviceWorker.addEventListener("controllerchange", () => resolve(undefined), { once: true });
  });
}

/** @param {Promise<unknown>} promise */
function withTimeout(promise) {
  return Promise.race([promise, new Promise((_, reject) => setTimeout(reject, WAIT_MS, new Error("too slow")))]);
}
