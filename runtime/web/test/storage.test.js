/** The browser's storage: the page and models without a connection; models that are picked, resumed and deleted. */

import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { join } from "node:path";

import {
  DIST,
  EXACT_FOLDER,
  FOLDER,
  answer,
  ask,
  choose,
  copyFolder,
  exhaustive,
  forgetWorker,
  launch,
  open,
  readVectors,
  ready,
  test,
  visit,
} from "./browser.js";

const browser = await launch();
const { vectors, max_new_tokens: maxNewTokens } = await readVectors(EXACT_FOLDER);
const [{ messages, greedy }] = vectors;
const DATA = "model.onnx.data";
const BROKEN = /net::ERR_CONTENT_LENGTH_MISMATCH/; // an interrupted download
const data = await stat(join(EXACT_FOLDER, DATA));

async function answers(page) {
  assert.deepEqual(await answer(page, messages, { temperature: 0, maxNewTokens }), greedy);
}

test("the page and its model work without a server after the first visit", async (t) => {
  const offline = /ERR_CONNECTION_REFUSED/;
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/model/": EXACT_FOLDER }, expected: offline });
  await server.stop();
  await page.reload();
  await ready(page);
  assert.match(await page.textContent("#facts"), /the server cannot be reached, so the saved copy is used/);
  await choose(page, { temperature: 0, "max-new-tokens": maxNewTokens });
  assert.equal(await ask(page, messages[0].content), greedy.text);
  await server.start(server.port);
});

test("the page and the model can be at any path", async (t) => {
  const places = { "/some/where/": DIST, "/folders/exact/": EXACT_FOLDER };
  const { page } = await visit(t, browser, { places, query: "?model=/folders/exact&threads=2" });
  assert.ok(await page.evaluate(() => crossOriginIsolated));
  await answers(page);
});

test("the service worker leaves requests alone that name no file of the page", async (t) => {
  const { page } = await visit(t, browser, { places: { "/": DIST } });
  for (const [name, added] of [["page.js", "same-origin"], ["toString", null]]) {
    const header = await page.evaluate(async (name) => (await fetch(name)).headers.get("Cross-Origin-Opener-Policy"), name);
    assert.equal(header, added, name);
  }
});

test("without a model the page asks for an address, and downloads the model once", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER } });
  assert.equal(await page.textContent("#problem"), "");
  assert.equal(await page.locator("#models").isVisible(), true);
  await page.fill("#address", `${server.address}exact/`);
  await page.keyboard.press("Enter");
  await page.locator("#chat:not([hidden])").waitFor();
  await answers(page);
  await page.reload();
  await ready(page);
  await answers(page);
  assert.equal(server.requests.filter(({ path }) => path === `/exact/${DATA}`).length, 1);
});

test("a folder is picked, opened again without picking, and deleted", async (t) => {
  const { page } = await visit(t, browser, { places: { "/": DIST } });
  await page.setInputFiles("#pick", EXACT_FOLDER);
  await page.locator("#chat:not([hidden])").waitFor();
  await answers(page);
  await page.reload();
  await ready(page);
  await page.click("#kept button:has-text('Open')");
  await page.locator("#chat:not([hidden])").waitFor();
  await answers(page);
  await page.click("#show-models");
  assert.match(await page.locator("#kept .name").textContent(), /^[\w-]+, \d\.\d\d MB$/);
  await page.click("#kept button:has-text('Delete')");
  await page.locator("#kept li").waitFor({ state: "detached" });
  assert.equal(await page.evaluate(async () => {
    const names = [];
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("glm-folders");
    for await (const name of root.keys()) names.push(name);
    return names.length;
  }), 0);
});

exhaustive("two folders of the same name are both saved; an unknown id is an error", async (t) => {
  const { page } = await visit(t, browser, { places: { "/": DIST } });
  for (const folder of [await copyFolder(t, EXACT_FOLDER), await copyFolder(t, FOLDER)]) {
    await page.setInputFiles("#pick", folder);
    await page.locator("#loading[hidden]").waitFor({ state: "attached" });
    await page.click("#show-models");
  }
  await page.locator("#kept li").nth(1).waitFor();
  const refused = await open(page, { storedId: "0".repeat(32) });
  assert.equal(refused.error, "FolderError");
  assert.match(refused.message, /the folder 0{32} is not saved in this browser; download or pick it again/);
  await page.click("#show-models");
  await page.click("#show-models");
  assert.equal(await page.locator("#kept li").count(), 2);
});

test("a dropped folder", async (t) => {
  const { page } = await visit(t, browser, { places: { "/": DIST } });
  const devtools = await page.context().newCDPSession(page);
  const box = await page.locator("#drop").boundingBox();
  const point = { x: box.x + 20, y: box.y + 20, data: { items: [], files: [EXACT_FOLDER], dragOperationsMask: 1 } };
  for (const type of ["dragEnter", "dragOver", "drop"]) await devtools.send("Input.dispatchDragEvent", { type, ...point });
  await page.locator("#chat:not([hidden])").waitFor();
  await answers(page);
});

for (const hasRanges of [true, false]) {
  const register = hasRanges ? test : exhaustive;
  register(`an interrupted download ${hasRanges ? "continues" : "starts again if the server does not support ranges"}`, async (t) => {
    const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER }, expected: BROKEN });
    server.hasRanges = hasRanges;
    server.breaks.set(`/exact/${DATA}`, data.size >> 1);
    const broken = await open(page, "exact/");
    assert.equal(broken.error, "UnreachableError");
    assert.match(broken.message, /the download of .*model\.onnx\.data was interrupted after \d\.\d\d MB .*open the folder again/);
    await page.click("#show-models");
    assert.match(await page.locator("#kept .name").textContent(), /incomplete download, \d\.\d\d MB/);
    assert.ok((await open(page, "exact/")).label);
    await answers(page);
    const [, again] = server.requests.filter(({ path }) => path === `/exact/${DATA}`);
    assert.match(again.range, /^bytes=\d{6,}-$/);
  });
}

test("a download is cancelled", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER }, expected: /ERR_/ });
  server.waits = `/exact/${DATA}`;
  await page.fill("#address", `${server.address}exact/`);
  await page.keyboard.press("Enter");
  await page.locator("#progress-text:has-text('model.onnx.data')").waitFor();
  const { max, value } = await page.locator("#progress").evaluate(({ max, value }) => ({ max, value }));
  assert.ok(max > data.size && value > 0 && value < max, `${value} of ${max}`);
  await page.click("#cancel");
  await page.locator("#loading[hidden]").waitFor({ state: "attached" });
  assert.equal(await page.textContent("#problem"), "");
  server.waits = "";
  assert.ok((await open(page, "exact/")).label);
  await answers(page);
});

exhaustive("two tabs fetch the same folder", async (t) => {
  const { page, server, visitor } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER } });
  const other = await visitor.newPage();
  await other.goto(server.address);
  await ready(other);
  server.waits = `/exact/${DATA}`;
  const first = open(page, "exact/");
  await page.locator("#progress-text:has-text('model.onnx.data')").waitFor();
  const refused = await open(other, "exact/");
  assert.equal(refused.error, "StorageError");
  assert.match(refused.message, /is being written by another tab .*wait until that tab is done, or close it/);
  await page.click("#cancel");
  assert.equal((await first).error, "AbortError");
  server.waits = "";
  assert.ok((await open(other, "exact/")).label);
  await answers(other);
});

exhaustive("a reload that bypasses the service worker, and a model that is opened during a download", async (t) => {
  const { page, server, visitor } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER, "/slow/": FOLDER } });
  const devtools = await visitor.newCDPSession(page);
  await page.evaluate(() => (window.isOld = true));
  await devtools.send("Page.reload", { ignoreCache: true });
  await page.waitForFunction(() => !window.isOld && window.glm);
  await ready(page);
  assert.ok(await page.evaluate(() => crossOriginIsolated && navigator.serviceWorker.controller !== null));
  server.waits = `/slow/${DATA}`;
  const slow = open(page, "slow/");
  await page.locator("#progress-text:has-text('model.onnx.data')").waitFor();
  assert.match((await open(page, "exact/")).label, /exact$/);
  assert.equal((await slow).error, "AbortError");
  assert.equal(await page.locator("#loading").isVisible(), false);
  await answers(page);
});

exhaustive("a folder that was exported again replaces the saved one", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/model/": FOLDER } });
  server.places["/model/"] = EXACT_FOLDER;
  await page.reload();
  await ready(page);
  await answers(page);
  await page.click("#show-models");
  await page.locator("#kept li").waitFor();
  assert.equal(await page.locator("#kept li").count(), 1);
});

exhaustive("too little storage is reported before the download", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER } });
  // Chromium always reports 10 GB of free storage, so the test replaces its answer.
  server.prefixes.set("/worker.js", "navigator.storage.estimate = async () => ({ quota: 2e6, usage: 5e5 });\n");
  await forgetWorker(page);
  const refused = await open(page, "exact/");
  assert.equal(refused.error, "StorageError");
  assert.match(refused.message, /exact needs 4\.\d\d MB of storage where this browser offers 1\.50 MB to this page; delete saved models/);
  assert.ok(!server.requests.some(({ path }) => path.endsWith(DATA)));
});

exhaustive("storage that is exhausted during the download", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER } });
  const devtools = await page.context().newCDPSession(page);
  const { origin } = new URL(server.address);
  await devtools.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 1_000_000 });
  const refused = await open(page, "exact/");
  assert.equal(refused.error, "StorageError", refused.message);
  assert.match(refused.message, /this browser has not enough storage for model\.onnx\.data \(3\.\d\d MB\); delete saved models/);
  await devtools.send("Storage.overrideQuotaForOrigin", { origin });
  assert.ok((await open(page, "exact/")).label);
  await answers(page);
});

exhaustive("a browser that saves nothing, such as a private window", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER } });
  server.prefixes.set("/worker.js", "navigator.storage.getDirectory = async () => { throw new DOMException('no', 'SecurityError'); };\n");
  await forgetWorker(page);
  assert.ok((await open(page, "exact/")).label);
  assert.match(await page.textContent("#facts"), /this browser does not save files for this page/);
  await answers(page);
});

test("a saved file that was truncated or changed", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/model/": EXACT_FOLDER } });
  const damage = (size) =>
    page.evaluate(async ([name, size]) => {
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("glm-folders");
      for await (const folder of root.values()) {
        const writable = await (await folder.getFileHandle(name)).createWritable({ keepExistingData: size === null });
        await (size === null ? writable.write({ type: "write", position: 1000, data: "?" }) : writable.truncate(size));
        await writable.close();
      }
    }, [DATA, size]);
  await damage(100);
  assert.ok((await open(page, "model/")).label); // the size is wrong, so it is downloaded again
  await answers(page);
  assert.equal(server.requests.filter(({ path }) => path === `/model/${DATA}`).length, 2);
  await damage(null);
  const verify = (from) =>
    page.evaluate(async (from) => {
      const { listStored, load } = await import("./glm.js");
      const [{ id }] = await listStored();
      return load(from ?? { storedId: id }, { verify: true }).then(
        (model) => model.release(),
        (error) => `${error.name}: ${error.message}`,
      );
    }, from);
  assert.match(await verify(), /^FolderError: .*the SHA-256 of model\.onnx\.data differs from the manifest; the damaged files were deleted: download/);
  assert.ok((await open(page, "model/")).label);
  assert.equal(server.requests.filter(({ path }) => path === `/model/${DATA}`).length, 3);
  await damage(null);
  assert.equal(await verify("model/"), undefined); // downloads the changed file again
  assert.equal(await verify(), undefined);
  await answers(page);
  assert.equal(server.requests.filter(({ path }) => path === `/model/${DATA}`).length, 4);
});

exhaustive("a folder from two addresses that is also picked is saved once, and its records are not rewritten", async (t) => {
  const places = { "/": DIST, "/exact/": EXACT_FOLDER, "/same/": EXACT_FOLDER };
  const { page, server } = await visit(t, browser, { places, expected: /ERR_CONNECTION_REFUSED/ });
  const read = () =>
    page.evaluate(async () => {
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("glm-folders");
      const found = [];
      for await (const folder of root.values()) {
        for (const name of ["stored.json", "glm_manifest.json"]) {
          const file = await (await folder.getFileHandle(name)).getFile();
          found.push([file.lastModified, name === "stored.json" ? await file.text() : ""]);
        }
      }
      return found;
    });
  await open(page, "exact/");
  const before = await read();
  assert.ok((await open(page, "exact/")).label);
  assert.deepEqual(await read(), before);
  await open(page, "same/");
  await page.click("#show-models");
  await page.setInputFiles("#pick", EXACT_FOLDER);
  await page.locator("#loading[hidden]").waitFor({ state: "attached" });
  await server.stop();
  for (const address of ["exact/", "same/"]) assert.ok((await open(page, address)).label);
  await server.start(server.port);
  server.places["/exact/"] = FOLDER;
  await open(page, "exact/");
  const keys = (await read()).map(([, text]) => text && JSON.parse(text).keys).filter(Boolean);
  assert.deepEqual(keys.map((one) => one.length).sort(), [1, 2]); // the new one; "same/" and what was picked
});

exhaustive("the saved copy is used while the server fails", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER } });
  await open(page, "exact/");
  server.statuses.set("/exact/", 503);
  assert.ok((await open(page, "exact/")).label);
  assert.match(await page.textContent("#facts"), /the saved copy is used/);
});

exhaustive("a download that cannot start leaves no files", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER } });
  server.prefixes.set("/worker.js", "navigator.storage.estimate = async () => ({ quota: 2e6, usage: 5e5 });\n");
  await forgetWorker(page);
  assert.equal((await open(page, "exact/")).error, "StorageError");
  await page.click("#show-models");
  await page.click("#show-models");
  assert.equal(await page.locator("#kept li").count(), 0);
});

exhaustive("a file that cannot be written is not reported as used by another tab", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER } });
  server.prefixes.set("/worker.js", `FileSystemFileHandle.prototype.createSyncAccessHandle = async () => {
    throw new DOMException("no", "UnknownError");
  };\n`);
  await forgetWorker(page);
  const refused = await open(page, "exact/");
  assert.equal(refused.error, "StorageError");
  assert.match(refused.message, /cannot be written in this browser \(no\); free disk space/);
  await page.click("#show-models");
  await page.click("#show-models");
  assert.equal(await page.locator("#kept li").count(), 0);
});

exhaustive("an interrupted download from another origin continues", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER }, expected: BROKEN });
  server.hasCors = server.hasRanges = true;
  server.breaks.set(`/exact/${DATA}`, data.size >> 1);
  const elsewhere = `http://127.0.0.1:${server.port}/exact/`;
  assert.equal((await open(page, elsewhere)).error, "UnreachableError");
  assert.ok((await open(page, elsewhere)).label);
  await answers(page);
  const asked = server.requests.filter(({ path }) => path === `/exact/${DATA}`);
  assert.equal(asked.length, 2);
  assert.match(asked[1].range, /^bytes=\d{6,}-$/);
});

exhaustive("two copies of the page at one origin have separate caches", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/other/": DIST } });
  const first = await page.evaluate(() => caches.keys());
  await page.goto(`${server.address}other/`);
  await ready(page);
  const both = await page.evaluate(() => caches.keys());
  assert.deepEqual([first.length, both.length], [1, 2]);
  assert.ok(both.includes(first[0]));
});

exhaustive("an older page does not use files of a newer onnxruntime-web", async (t) => {
  const expected = /integrity|ERR_FAILED|digest/i;
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER }, expected });
  server.prefixes.set("/onnxruntime/ort.wasm.min.mjs", "/* another version */");
  const { message } = await open(page, "exact/");
  assert.match(message, /onnxruntime-web cannot be loaded .*close all tabs of this page and open it again/);
  server.prefixes.clear();
  assert.ok((await open(page, "exact/")).label);
  await answers(page);
});
