/** Folders with other options of glm-export, compared with their vectors. GLM_KINDS is a JSON object of folders by name. */

import assert from "node:assert/strict";

import { DIST, answer, boundOf, isSure, launch, measureLogits, readVectors, test, visit } from "./browser.js";

const kinds = JSON.parse(process.env.GLM_KINDS ?? "{}");
const browser = await launch();

test("there are kinds", () => assert.ok(Object.keys(kinds).length > 0, "GLM_KINDS is not set; run pytest tests/hosts/test_web.py"));

for (const [kind, folder] of Object.entries(kinds)) {
  test(kind, async (t) => {
    const { page } = await visit(t, browser, { places: { "/": DIST, "/model/": folder } });
    const { vectors, max_new_tokens: maxNewTokens } = await readVectors(folder);
    let compared = 0;
    for (const vector of vectors) {
      assert.deepEqual(await page.evaluate((messages) => glm.model.prepareChat(messages), vector.messages), vector.token_ids);
      const difference = await measureLogits(page, vector);
      assert.ok(difference < boundOf(vector), `${difference} where ${boundOf(vector)} is allowed`);
      if (!isSure(vector)) continue;
      compared++;
      assert.deepEqual(await answer(page, vector.messages, { temperature: 0, maxNewTokens }), vector.greedy);
    }
    // The chatglm folder has random weights, whose margins are narrow.
    assert.ok(compared >= 1 || kind === "chatglm", "no vector has a margin that is wide enough to compare tokens");
  });
}

for (const kind of ["int8 cache", "fp16"]) {
  test(`${kind}: WebAssembly is used where WebGPU cannot run the graph, and the page says so`, async (t) => {
    const flags = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];
    const places = { "/": DIST, "/model/": kinds[kind] };
    const { page } = await visit(t, await launch(flags), { places, expected: /WebGPU|GPU|ERROR|onnxruntime/i });
    const features = await page.evaluate(async () => [...((await navigator.gpu?.requestAdapter())?.features ?? ["none"])]);
    if (features[0] === "none") return t.skip("this Chromium offers no WebGPU adapter, not even SwiftShader");
    if (kind === "fp16" && features.includes("shader-f16")) return t.skip("this WebGPU adapter has float16");
    assert.match(await page.textContent("#facts"), /WebAssembly, \d threads?; WebGPU cannot (run|load) this graph .*; WebAssembly is used instead/);
    const { vectors, max_new_tokens: maxNewTokens } = await readVectors(kinds[kind]);
    const sure = vectors.find(isSure);
    assert.deepEqual(await answer(page, sure.messages, { temperature: 0, maxNewTokens }), sure.greedy);
  });
}
