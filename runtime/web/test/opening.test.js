/** Opening a model: the default model, cancelled, mistyped, or with a template or a tokenizer that never ends. The page continues. */

import assert from "node:assert/strict";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";

import {
  DIST,
  EXACT_FOLDER,
  ask,
  choose,
  copyFolder,
  exhaustive,
  launch,
  open,
  readVectors,
  replaceFile,
  test,
  visit,
} from "./browser.js";
import { StaticServer } from "./static_server.js";

const browser = await launch();
const { vectors, max_new_tokens: maxNewTokens } = await readVectors(EXACT_FOLDER);
const [{ messages, greedy }] = vectors;
const words = messages[0].content;
const settings = { temperature: 0, "max-new-tokens": maxNewTokens };
const ONNXRUNTIME = "/onnxruntime/ort.wasm.min.mjs";
const places = { "/": DIST, "/exact/": EXACT_FOLDER };
const ENDLESS = "{% if messages[0].content == 'forever' %}{% for i in range(1000) %}{% for j in range(1000) %}{% for k in range(1000) %}{{ k }}{% endfor %}{% endfor %}{% endfor %}{% endif %}hello {{ messages[0].content }}";

const starting = (page) => page.locator("#progress-text:has-text('Starting')").waitFor();
const isOver = (page) => page.locator("#loading[hidden]").waitFor({ state: "attached" });

async function type(page, address) {
  if (!(await page.locator("#models").isVisible())) await page.click("#show-models");
  await page.fill("#address", address);
  await page.press("#address", "Enter");
}

exhaustive("cancelled while the model starts; another one is wanted while it starts", async (t) => {
  const { page, server } = await visit(t, browser, { places, query: "?threads=1", expected: /ERR_/ });
  server.waits = ONNXRUNTIME;
  await type(page, `${server.address}exact/`);
  await starting(page);
  await page.click("#cancel");
  await isOver(page);
  assert.equal(await page.textContent("#problem"), "");
  assert.equal(page.workers().length, 0);
  const first = open(page, "exact/");
  await starting(page);
  server.waits = "";
  assert.match((await open(page, "exact/?again")).label, /exact$/);
  assert.equal((await first).error, "AbortError");
  assert.equal(page.workers().length, 1);
  await choose(page, settings);
  assert.equal(await ask(page, words), greedy.text);
});

exhaustive("a mistyped address costs no conversation", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/model/": EXACT_FOLDER } });
  await choose(page, settings);
  await ask(page, words);
  await type(page, `${server.address}nothing/`);
  await page.locator("#problem:has-text('nothing/glm_manifest.json is missing')").waitFor();
  assert.equal(await page.locator(".turn").count(), 2);
  await ask(page, "And then?");
  assert.equal(await page.locator(".turn").count(), 4);
});

exhaustive("a model that takes the place of one in the middle of an answer, and does not start, leaves no button", async (t) => {
  const folder = await copyFolder(t);
  await replaceFile(folder, "model.onnx", "no graph");
  const { page } = await visit(t, browser, { places: { "/": DIST, "/model/": EXACT_FOLDER, "/bad/": folder } });
  await page.fill("#message", vectors[3].messages[0].content);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector(".is-writing > .text")?.textContent.length > 3);
  assert.equal((await open(page, "bad/")).error, "FolderError");
  assert.equal(await page.locator("#stop").isVisible(), false);
  assert.ok((await open(page, "model/")).label);
  assert.equal(await page.locator(".turn").count(), 0);
  await choose(page, settings);
  assert.equal(await ask(page, words), greedy.text);
  assert.equal(await page.getAttribute("#show-models", "aria-expanded"), "false");
});

for (const [what, prepare] of [
  ["refused with 403", (server) => server.statuses.set("/model/", 403)],
  ["answered with 503", (server) => server.statuses.set("/model/", 503)],
  ["answered with a web page", (server) => (server.instead = "<!doctype html><title>Not here</title>")],
]) {
  const register = what.includes("web page") ? test : exhaustive;
  register(`no model beside the page, ${what}: the page asks for one`, async (t) => {
    const { page } = await visit(t, browser, { places, prepare });
    assert.equal(await page.textContent("#problem"), "");
    assert.ok(await page.locator("#models").isVisible());
  });
}

test("a model beside the page without its weights gives an error message", async (t) => {
  const folder = await copyFolder(t);
  await rm(join(folder, "model.onnx.data"));
  const { page } = await visit(t, browser, { places: { "/": DIST, "/model/": folder } });
  assert.match(await page.textContent("#problem"), /model\.onnx\.data is missing/);
  assert.ok(await page.locator("#models").isVisible());
});

test("the page's address contains an invalid address", async (t) => {
  const { page } = await visit(t, browser, { places, query: "?model=http://[" });
  assert.match(await page.textContent("#problem"), /"http:\/\/\[" is not the address of a folder/);
});

test("a link to a model of another origin loads nothing until the user agrees, and is not remembered", async (t) => {
  const other = await new StaticServer({ "/exact/": EXACT_FOLDER }).start();
  t.after(() => other.stop());
  other.hasCors = true;
  const address = `${other.address}exact/`;
  const { page } = await visit(t, browser, { places, query: `?model=${address}` });
  assert.ok((await page.textContent("#problem")).includes(`A link chose the model at ${address}`));
  assert.equal(await page.inputValue("#address"), address);
  assert.deepEqual(other.requests, []);
  await page.click("#fetch button");
  await page.locator("#chat:not([hidden])").waitFor();
  assert.equal(await page.textContent("#problem"), "");
  assert.equal(await page.evaluate(() => localStorage.getItem("glm-last")), null);
});

exhaustive("site data is blocked", async (t) => {
  const script = `for (const name of ["localStorage", "sessionStorage"]) {
    Object.defineProperty(window, name, { get() { throw new DOMException("blocked", "SecurityError"); } });
  }`;
  const { page, server } = await visit(t, browser, { places, script });
  await type(page, `${server.address}exact/`);
  await page.locator("#chat:not([hidden])").waitFor();
  await choose(page, settings);
  assert.equal(await ask(page, words), greedy.text);
});

test("a chat template that never ends is ended", async (t) => {
  const folder = await copyFolder(t, EXACT_FOLDER);
  await replaceFile(folder, "chat_template.jinja", ENDLESS);
  const { page } = await visit(t, browser, { places: { "/": DIST, "/model/": folder } });
  await choose(page, { ...settings, "max-new-tokens": 3 });
  await page.fill("#message", "forever");
  await page.keyboard.press("Enter");
  await page.locator("#problem:has-text('is not allowed (it takes more than')").waitFor();
  assert.equal(await page.inputValue("#message"), "forever");
  assert.ok((await ask(page, "once")).length > 0);
});

test("a tokenizer that never ends is ended ten seconds after a stop", async (t) => {
  const folder = await copyFolder(t, EXACT_FOLDER);
  const tokenizer = JSON.parse(await readFile(join(folder, "tokenizer.json"), "utf8"));
  // 2^100 ways to read a hundred letters, none of which ends in an exclamation mark.
  const { pattern } = tokenizer.pre_tokenizer.pretokenizers[0];
  pattern.Regex = `(?:z|z)+!|${pattern.Regex}`;
  await replaceFile(folder, "tokenizer.json", JSON.stringify(tokenizer));
  const { page } = await visit(t, browser, { places: { "/": DIST, "/model/": folder } });
  await choose(page, { ...settings, "max-new-tokens": 3 });
  await page.fill("#message", "z".repeat(100));
  await page.keyboard.press("Enter");
  await page.click("#stop");
  await page.locator("#problem:has-text('the model did not stop within 10 s and was ended; load it again')").waitFor();
  await page.reload();
  assert.ok((await ask(page, "once")).length > 0);
});
