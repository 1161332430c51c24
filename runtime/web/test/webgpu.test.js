/**
 * WebGPU, on SwiftShader where there is no GPU: slow, but its figures are those of the WebGPU kernels.
 *
 * Half a minute a test; a few tokens of each answer are compared.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import { DIST, EXACT_FOLDER, answer, launch, measureLogits, readVectors, visit } from "./browser.js";

const FLAGS = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];
const COUNT = 4;
const browser = await launch(FLAGS);
const { vectors } = await readVectors(EXACT_FOLDER);
const places = { "/": DIST, "/model/": EXACT_FOLDER };

/** A page with WebGPU, or none: then the test says so. */
async function visitGpu(t, options) {
  const visited = await visit(t, browser, { places, ...options });
  const hasAdapter = await visited.page.evaluate(async () => Boolean(await navigator.gpu?.requestAdapter()));
  if (!hasAdapter) t.skip("this Chromium offers no WebGPU adapter, not even SwiftShader");
  return { ...visited, hasAdapter };
}

test("tokens and logits are the vectors'", async (t) => {
  const { page, hasAdapter } = await visitGpu(t);
  if (!hasAdapter) return;
  assert.equal(await page.evaluate(() => `${glm.model.backend} ${glm.model.note}`), "webgpu ");
  assert.match(await page.textContent("#facts"), /: WebGPU\.$/);
  for (const vector of [vectors[1], vectors.at(-1)]) {
    assert.ok((await measureLogits(page, vector)) < 1e-3);
    const { token_ids: tokens } = await answer(page, vector.messages, { temperature: 0, maxNewTokens: COUNT });
    assert.deepEqual(tokens, vector.greedy.token_ids.slice(0, COUNT));
  }
});

test("a session that goes back to what it read answers as a new one", async (t) => {
  const { page, hasAdapter } = await visitGpu(t);
  if (!hasAdapter) return;
  const found = await page.evaluate(async ([first, second, maxNewTokens]) => {
    const session = glm.model.newSession();
    const answers = [];
    for (const messages of [first, second, first]) {
      const tokens = [];
      for await (const piece of session.chat(messages, { temperature: 0, maxNewTokens })) tokens.push(piece.tokenId);
      answers.push(tokens);
    }
    return answers;
  }, [vectors.at(-1).messages, vectors[1].messages, COUNT]);
  const [first, second] = [vectors.at(-1), vectors[1]].map((vector) => vector.greedy.token_ids.slice(0, COUNT));
  assert.deepEqual(found, [first, second, first]);
});

test("two answers at once", async (t) => {
  // Two runs at once hang onnxruntime-web's WebGPU for good.
  const { page, hasAdapter } = await visitGpu(t);
  if (!hasAdapter) return;
  const asked = [vectors.at(-1), vectors[1]];
  const found = await page.evaluate(([asked, maxNewTokens]) => Promise.all(asked.map(async (messages) => {
    const tokens = [];
    for await (const piece of glm.model.chat(messages, { temperature: 0, maxNewTokens })) tokens.push(piece.tokenId);
    return tokens;
  })), [asked.map((vector) => vector.messages), COUNT]);
  assert.deepEqual(found, asked.map((vector) => vector.greedy.token_ids.slice(0, COUNT)));
});

test("more than 31 tokens at once are wrong in onnxruntime-web 1.30", async (t) => {
  // When a version gives the right ones, CHUNK_TOKENS in src/web_graph.js may grow.
  const { page, hasAdapter } = await visitGpu(t);
  if (!hasAdapter) return;
  const vector = vectors.find(({ token_ids: tokens }) => tokens.length >= 32);
  const difference = await page.evaluate(async ([vector, layers, heads, size]) => {
    const base = new URL("onnxruntime/", document.baseURI).href;
    const { env, InferenceSession, Tensor } = await import(`${base}ort.webgpu.min.mjs`);
    env.wasm.wasmPaths = base;
    env.wasm.numThreads = 1;
    const read = async (name) => new Uint8Array(await (await fetch(`model/${name}`)).arrayBuffer());
    const session = await InferenceSession.create(await read("model.onnx"), {
      executionProviders: ["webgpu"],
      externalData: [{ path: "model.onnx.data", data: await read("model.onnx.data") }],
      logSeverityLevel: 3,
    });
    const count = vector.token_ids.length;
    const feeds = {
      input_ids: new Tensor("int64", BigInt64Array.from(vector.token_ids, BigInt), [1, count]),
      attention_mask: new Tensor("int64", new BigInt64Array(count).fill(1n), [1, count]),
    };
    for (let layer = 0; layer < layers; layer++) {
      for (const part of ["key", "value"]) {
        feeds[`past_key_values.${layer}.${part}`] = new Tensor("float32", new Float32Array(0), [1, heads, 0, size]);
      }
    }
    const { logits } = await session.run(feeds);
    const { data } = logits;
    return Math.hypot(...vector.logit_ids.map((id, i) => data[id] - vector.logits[i])) / Math.hypot(...vector.logits);
  }, [vector, ...Object.values(await page.evaluate(() => [glm.model.shape.numLayers, glm.model.shape.numKvHeads, glm.model.shape.headDim]))]);
  assert.ok(difference > 0.05, `they differ by ${difference} only`);
});
