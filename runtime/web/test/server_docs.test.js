/** The page of the endpoints, and the worker that removes the page with a model in the browser from this address. */

import assert from "node:assert/strict";
import { createServer, request as send } from "node:http";
import { after } from "node:test";

import { PATIENCE_MS, launch, test, watch } from "./chromium.js";
import { KEY_SERVER, SERVER, visitServer } from "./server_browser.js";

const browser = await launch();
const OLD_PAGE = "<!doctype html><title>Old</title><script>navigator.serviceWorker.register('service_worker.js')</script>";
const OLD_WORKER = `
  self.addEventListener("install", (event) => event.waitUntil(caches.open("glm-page / 1").then((cache) => cache.add("/"))));
  self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
  self.addEventListener("fetch", (event) => {
    if (new URL(event.request.url).pathname === "/") event.respondWith(caches.match("/"));
  });`;

/** The operations that a page shows, such as `POST /v1/responses`. */
function readOperations(page) {
  return page.locator(".opblock-summary").evaluateAll((blocks) =>
    blocks.map((one) => `${one.querySelector(".opblock-summary-method").textContent} ${one.querySelector(".opblock-summary-path").dataset.path}`),
  );
}

async function listOperations(headers = {}) {
  const { paths } = await (await fetch(`${SERVER}openapi.json`, { headers })).json();
  return Object.entries(paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`));
}

test("every endpoint is shown, opens and can be tried; nothing is loaded from elsewhere", async (t) => {
  const { page } = await visitServer(t, browser, { isOpen: false });
  await page.goto(`${SERVER}docs`);
  await page.locator(".opblock-summary").first().waitFor();
  const operations = await readOperations(page);
  assert.deepEqual(operations.sort(), (await listOperations()).sort());
  assert.ok(operations.length > 12);
  for (const block of await page.locator(".opblock-summary-control").all()) await block.click();
  await page.locator(".opblock-body .model-example, .opblock-body .responses-wrapper").nth(operations.length - 1).waitFor();
  const health = page.locator(".opblock", { has: page.locator('[data-path="/health"]') });
  await health.locator(".try-out__btn").click();
  await health.locator(".execute").click();
  await health.locator(".live-responses-table .response-col_status", { hasText: "200" }).waitFor();
  if (process.env.GLM_SCREENSHOT) await page.screenshot({ path: process.env.GLM_SCREENSHOT, fullPage: false });
});

test("the page asks for the key, and holds no secret before", async (t) => {
  const shown = await (await fetch(`${KEY_SERVER}docs`)).text();
  assert.ok(!shown.includes("/v1/"));
  const { page } = await visitServer(t, browser, { address: KEY_SERVER, isOpen: false, expected: /status of 401/ });
  await page.goto(`${KEY_SERVER}docs`);
  await page.fill("#api-key", "right");
  await page.click("#key .main");
  await page.locator(".opblock-summary").first().waitFor();
  const models = page.locator(".opblock", { has: page.locator('[data-path="/v1/models"]') });
  await models.locator(".opblock-summary-control").click();
  await models.locator(".try-out__btn").click();
  await models.locator(".execute").click();
  await models.locator(".live-responses-table .response-col_status", { hasText: "200" }).waitFor();
});

test("a page with a model in the browser, once at this address, does not hide the server's page", async (t) => {
  let isOld = true;
  const proxy = createServer((incoming, outgoing) => {
    if (isOld) {
      const isScript = incoming.url === "/service_worker.js";
      outgoing.writeHead(200, { "Content-Type": isScript ? "text/javascript" : "text/html" }).end(isScript ? OLD_WORKER : OLD_PAGE);
      return;
    }
    const { method, headers } = incoming;
    const forwarded = send(new URL(incoming.url, SERVER), { method, headers }, (reply) => {
      outgoing.writeHead(reply.statusCode, reply.headers);
      reply.pipe(outgoing);
    });
    incoming.pipe(forwarded);
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  after(() => proxy.close());
  const address = `http://127.0.0.1:${proxy.address().port}/`;
  const visitor = await browser.newContext();
  t.after(() => visitor.close());
  visitor.setDefaultTimeout(PATIENCE_MS);
  const page = await visitor.newPage();
  const errors = watch(page);
  await page.goto(address);
  await page.evaluate(() => navigator.serviceWorker.ready);
  isOld = false;
  await page.goto(address); // the old page, from the cache of its worker
  await page.locator("#chat:not([hidden])").waitFor();
  assert.equal(await page.title(), "GLM on this server");
  await page.waitForFunction(async () => (await navigator.serviceWorker.getRegistrations()).length === 0);
  assert.deepEqual(await page.evaluate(() => caches.keys()), []);
  assert.deepEqual(errors, []);
});
