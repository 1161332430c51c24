/**
 * The service worker: caches the page's own files for offline use, and isolates the page.
 *
 * Only an isolated page may share memory between threads. Isolation needs two headers (COOP and COEP)
 * that simple servers do not send; they are added to every response here. Models are stored by
 * `stored_folders.js`.
 */

/* global SHELL, ON_DEMAND, POLICY, VERSION */

// The path is part of the name, because another copy of the page may be at another path of this origin.
const CACHE_PREFIX = `glm-page ${new URL(self.registration.scope).pathname} `;
const CACHE_NAME = CACHE_PREFIX + VERSION;
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Content-Security-Policy": POLICY, // the page also has it as a <meta>, which does not apply to its worker
};

self.addEventListener("install", (event) => event.waitUntil(keepShell()));
self.addEventListener("activate", (event) => event.waitUntil(takeOver()));
self.addEventListener("message", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const name = findName(event.request);
  if (name !== null) event.respondWith(answer(name));
});

async function keepShell() {
  const cache = await caches.open(CACHE_NAME);
  await cache.addAll(SHELL.map((name) => new Request(name, { cache: "reload" })));
}

/** Delete the caches of older versions. No page of an older version is open any more. */
async function takeOver() {
  for (const name of await caches.keys()) {
    if (name.startsWith(CACHE_PREFIX) && name !== CACHE_NAME) await caches.delete(name);
  }
  await self.clients.claim();
}

/**
 * The name of the page's file that is requested; `null` for other requests, such as a model beside the page.
 * @param {Request} request
 */
function findName(request) {
  const scope = new URL(self.registration.scope);
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== scope.origin || !url.pathname.startsWith(scope.pathname)) return null;
  const name = url.pathname.slice(scope.pathname.length) || "index.html";
  return SHELL.includes(name) || Object.hasOwn(ON_DEMAND, name) ? name : null;
}

/** @param {string} name */
async function answer(name) {
  const cache = await caches.open(CACHE_NAME);
  const kept = await cache.match(name);
  if (kept) return isolate(kept);
  // The integrity check keeps an older page from getting a file of a newer version.
  const fetched = await fetch(name, { cache: "no-cache", ...(SHELL.includes(name) ? {} : { integrity: ON_DEMAND[name] }) });
  // onnxruntime-web has two builds, of 14 MB and 27 MB. Only the build that is used is cached.
  if (fetched.ok) await cache.put(name, fetched.clone()).catch(() => {}); // without storage the page works online only
  return isolate(fetched);
}

/** @param {Response} response */
function isolate(response) {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
