/** What the tests share: Chromium, a server, and the folders under test. */

import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHash } from "node:crypto";
import assert from "node:assert/strict";
import { after, test as register } from "node:test";

import { chromium } from "playwright-core";

import { StaticServer } from "./static_server.js";

export const DIST = process.env.GLM_PAGE ?? join(import.meta.dirname, "..", "dist"); // or the page of a release
const IS_EXHAUSTIVE = process.env.GLM_EXHAUSTIVE === "1";
export const PATIENCE_MS = 300_000; // a busy machine may be slow; a wait ends earlier as soon as its condition holds

/** A test of the default suite. @type {typeof register} */
export const test = IS_EXHAUSTIVE ? skipQuietly : register;
/** A variant that runs only with GLM_EXHAUSTIVE=1, and then without the default suite. @type {typeof register} */
export const exhaustive = IS_EXHAUSTIVE ? register : skipQuietly;

function skipQuietly() {}

/** Made by `glm-export artifacts/glm4-sample --method rtn --conformance -o DIR`. */
export const FOLDER = process.env.GLM_FOLDER ?? "";
/** The same with `--accuracy-level 0`: activations are float32, as always in WebAssembly. */
export const EXACT_FOLDER = process.env.GLM_EXACT_FOLDER ?? "";
const CHROMIUM = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome"].find((path) => path && existsSync(path));

if (!FOLDER || !EXACT_FOLDER) {
  throw new Error("GLM_FOLDER and GLM_EXACT_FOLDER are not both set; run pytest tests/hosts/test_web.py.");
}

/** @type {import("playwright-core").Browser[]} */
const browsers = [];
after(() => Promise.all(browsers.map((one) => one.close())));

/** @param {string[]} [flags] */
export async function launch(flags = []) {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", ...flags] });
  browsers.push(browser);
  return browser;
}

/** @param {string} folder */
export async function readVectors(folder) {
  return JSON.parse(await readFile(join(folder, "conformance.json"), "utf8"));
}

/**
 * Open the page with empty storage on a new server. An error in the browser's console fails the test.
 * @param {import("node:test").TestContext} test
 * @param {import("playwright-core").Browser} browser
 * @param {{ places?: Record<string, string>, query?: string, context?: object, expected?: RegExp, script?: string, prepare?: (server: StaticServer) => void }} [options]
 */
export async function visit(test, browser, { places, query = "", context = {}, expected, script, prepare } = {}) {
  const server = await new StaticServer(places ?? { "/": DIST, "/model/": FOLDER }).start();
  prepare?.(server);
  const visitor = await browser.newContext(context);
  visitor.setDefaultTimeout(PATIENCE_MS);
  if (script) await visitor.addInitScript(script);
  const page = await visitor.newPage();
  const errors = watch(page, expected);
  test.after(async () => {
    await visitor.close();
    await server.stop();
    assert.deepEqual(errors, []);
  });
  const base = Object.entries(server.places).find(([, folder]) => folder === DIST)[0].slice(1);
  await page.goto(server.address + base + query);
  await ready(page);
  return { page, server, visitor };
}

/**
 * Collect the errors of a page. HTTP errors are not among them: the page handles them.
 * @param {import("playwright-core").Page} page
 * @param {RegExp} [expected]
 */
export function watch(page, expected) {
  /** @type {string[]} */
  const errors = [];
  const note = (/** @type {string} */ text) => expected?.test(text) || errors.push(text);
  page.on("pageerror", (error) => note(String(error)));
  page.on("console", (message) => {
    const isAnswer = /Failed to load resource: the server responded with a status of (403|404|503)/.test(message.text());
    if (message.type() === "error" && !isAnswer) note(message.text());
  });
  return errors;
}

/** Wait until the page has opened its first model, or asks for one. The first visit loads the page twice. */
export async function ready(page) {
  await page.waitForFunction(() => window.glm?.ready.then(() => true), null, { timeout: PATIENCE_MS });
}

/** Open a folder; returns its label or the error. */
export function open(page, from) {
  return page.evaluate(
    (from) => glm.open(from).then((model) => ({ label: model.label }), (error) => ({ error: error.name, message: error.message })),
    from,
  );
}

/** Ask, and collect the pieces of the answer. */
export function answer(page, messages, options) {
  return page.evaluate(
    async ([messages, options]) => {
      const whole = { token_ids: [], text: "", reasoning: "", finish_reason: null };
      for await (const piece of glm.model.chat(messages, options)) {
        whole.token_ids.push(piece.tokenId);
        whole.text += piece.text;
        whole.reasoning += piece.reasoning;
        whole.finish_reason = piece.finishReason;
      }
      return whole;
    },
    [messages, options],
  );
}

/** Fill the fields of the settings dialog. */
export async function choose(page, fields) {
  await page.click("#show-settings");
  for (const [id, value] of Object.entries(fields)) {
    if (typeof value === "boolean") await page.setChecked(`#${id}`, value);
    else await page.fill(`#${id}`, String(value));
  }
  await page.click("#settings .main");
}

/** Ask in the page, wait until the answer is finished, and return its text. */
export async function ask(page, text) {
  await page.fill("#message", text);
  await page.keyboard.press("Enter");
  await finished(page);
  return page.locator(".turn:not(.asked) > .text").last().textContent();
}

export async function finished(page) {
  await page.locator("#send:not([hidden])").waitFor();
  await page.waitForFunction(() => !document.querySelector(".is-writing"));
}

/** Copy a folder. The copy is deleted after the test. */
export async function copyFolder(test, folder = FOLDER) {
  const root = await mkdtemp(join(tmpdir(), "glm-web-"));
  test.after(() => rm(root, { recursive: true }));
  const copy = join(root, "copy");
  await cp(folder, copy, { recursive: true });
  return copy;
}

/** Change the manifest of a copy. */
export async function changeManifest(folder, change) {
  const path = join(folder, "glm_manifest.json");
  const manifest = JSON.parse(await readFile(path, "utf8"));
  change(manifest);
  await writeFile(path, JSON.stringify(manifest));
}

/** Replace a file of a copy, and update the manifest. */
export async function replaceFile(folder, name, content) {
  await writeFile(join(folder, name), content);
  await changeManifest(folder, ({ files }) => {
    files[name] = { size_bytes: Buffer.byteLength(content), sha256: createHash("sha256").update(content).digest("hex") };
  });
}

/** Delete the worker's code from the cache, so that it is fetched again. */
export function forgetWorker(page) {
  return page.evaluate(async () => {
    for (const name of await caches.keys()) await (await caches.open(name)).delete("worker.js");
  });
}

/** The largest difference between a logit and the vector's. */
export async function measureLogits(page, vector) {
  const logits = await page.evaluate(async ([tokens, ids]) => {
    const all = await glm.model.readLogits(tokens);
    return ids.map((id) => all[id]);
  }, [vector.token_ids, vector.logit_ids]);
  return Math.max(...logits.map((logit, place) => Math.abs(logit - vector.logits[place])));
}

/**
 * Bounds for kernels that round activations differently from those that made the vectors. They limit the
 * difference of logits, and decide which greedy tokens must be equal (`glm_export/folder/conformance.py`).
 */
export const boundOf = (vector) => 3 * vector.logit_rounding + 1e-3;
export const isSure = (vector) => vector.smallest_margin > 2 * vector.logit_rounding;
