/** What the tests of a model in the browser share: a server, and the folders under test. Read `chromium.js` first. */

import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHash } from "node:crypto";
import assert from "node:assert/strict";

import { PATIENCE_MS, watch } from "./chromium.js";
import { StaticServer } from "./static_server.js";

export * from "./chromium.js";

export const DIST = process.env.GLM_PAGE ?? join(import.meta.dirname, "..", "dist"); // or the page of a release
/** Made by `glm-export artifacts/glm4-sample --method rtn --conformance -o DIR`. */
export const FOLDER = process.env.GLM_FOLDER ?? "";
/** The same with `--accuracy-level 0`: activations are float32, as always in WebAssembly. */
export const EXACT_FOLDER = process.env.GLM_EXACT_FOLDER ?? "";

if (!FOLDER || !EXACT_FOLDER) {
  throw new Error("GLM_FOLDER and GLM_EXACT_FOLDER are not both set; run pytest tests/hosts/test_web.py.");
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
