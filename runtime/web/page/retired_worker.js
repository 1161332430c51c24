/**
 * Replaces the service worker of the page with a model in the browser, if that page was served at this address before.
 *
 * The browser asks for a new version of the old worker when a page is opened. Without this one it would show the old
 * page, from its cache, instead of the server's.
 */

const scope = /** @type {any} */ (self);

scope.addEventListener("install", () => scope.skipWaiting());
scope.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(retire()));

async function retire() {
  const { pathname } = new URL(scope.registration.scope);
  for (const name of await caches.keys()) if (name.startsWith(`glm-page ${pathname} `)) await caches.delete(name);
  await scope.registration.unregister();
  for (const client of await scope.clients.matchAll({ type: "window" })) await client.navigate(client.url);
}
