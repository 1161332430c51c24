/** Folders of other kinds, held to their vectors: GLM_KINDS is JSON, a folder by the kind's name. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { DIST, answer, boundOf, isSure, launch, measureLogits, readVectors, visit } from "./browser.js";

const kinds = JSON.parse(process.env.GLM_KINDS ?? "{}");
const browser = await launch();

test("there are kinds", () => assert.ok(Object.keys(kinds).length > 0, "GLM_KINDS is not set; run pytest tests/hosts/test_web.py"));

for (const [kind, folder] of Object.entries(kinds)) {
  test(kind, async (t) => {
    const { page } = await visit(t, browser, { places: { "/": DIST, "/model/": folder } });
    const { vectors, max_new_tokens: maxNewTokens } = await readVectors(folder);
    for (const vector of vectors) {
      assert.deepEqual(await page.evaluate((messages) => glm.model.prepareChat(messages), vector.messages), vector.token_ids);
      const difference = await measureLogits(page, vector);
      assert.ok(difference < boundOf(vector), `${difference} where ${boundOf(vector)} is allowed`);
      if (!isSure(vector)) continue;
      assert.deepEqual(await answer(page, vector.messages, { temperature: 0, maxNewTokens }), vector.greedy);
    }
  });
}

test("what WebGPU does not run falls back to WebAssembly, and says so", async (t) => {
  const flags = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];
  const gpu = await launch(flags);
  const { page } = await visit(t, gpu, { places: { "/": DIST, "/model/": kinds["int8 cache"] }, expected: /WebGPU|GPU|ERROR|onnxruntime/i });
  if (!(await page.evaluate(async () => Boolean(await navigator.gpu?.requestAdapter())))) return t.skip("no WebGPU adapter");
  assert.match(await page.textContent("#facts"), /WebAssembly, \d threads?; WebGPU does not (run|take) this graph .*; WebAssembly is used instead/);
  const { vectors, max_new_tokens: maxNewTokens } = await readVectors(kinds["int8 cache"]);
  const sure = vectors.find(isSure);
  assert.deepEqual(await answer(page, sure.messages, { temperature: 0, maxNewTokens }), sure.greedy);
});
