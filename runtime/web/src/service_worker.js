/**
 * Keeps the page's own files for when there is no connection, and isolates it.
 *
 * An isolated page may share memory between threads. That takes two headers (COOP and COEP), which
 * plain servers do not send: every answer to the page gets them here. Models are kept elsewhere, by
 * `stored_folders.js`.
 */

/* global SHELL, ON_DEMAND, POLICY, VERSION */

// Another copy of the page may be at another path of this origin; no path has a space.
const CACHE_PREFIX = `glm-page ${new URL(self.registration.scope).pathname} `;
const CACHE_NAME = CACHE_PREFIX + VERSION;
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Content-Security-Policy": POLICY, // the page has it as a <meta>, too, which does not bind its worker
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

/** Older versions go: no page of theirs is open any more. */
async function takeOver() {
  for (const name of await caches.keys()) {
    if (name.startsWith(CACHE_PREFIX) && name !== CACHE_NAME) await caches.delete(name);
  }
  await self.clients.claim();
}

/**
 * The page's file that is asked for; `null` for all else, such as a model beside the page.
 * @param {Request} request
 */
function findName(request) {
  const scope = new URL(self.registration.scope);
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== scope.origin || !url.pathname.startsWith(scope.pathname)) return null;
  const name = url.pathname.slice(scope.pathname.length) || "index.html";
  return SHELL.includes(name) || name in ON_DEMAND ? name : null;
}

/** @param {string} name */
async function answer(name) {
  const cache = await caches.open(CACHE_NAME);
  const kept = await cache.match(name);
  if (kept) return isolate(kept);
  // Of a newer version on the server an older page must get nothing.
  const fetched = await fetch(name, { cache: "no-cache", ...(name in ON_DEMAND ? { integrity: ON_DEMAND[name] } : {}) });
  // onnxruntime-web: 14 MB or 27 MB, and only one of the two is wanted.
  if (fetched.ok) await cache.put(name, fetched.clone()).catch(() => {}); // no room: not offline, but now
  return isolate(fetched);
}

/** @param {Response} response */
function isolate(response) {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
