/**
 * WebGPU, on SwiftShader if there is no GPU. SwiftShader is slow, but it computes the same WebGPU kernels.
 *
 * A test takes half a minute, so only the first tokens of each answer are compared.
 */

import assert from "node:assert/strict";

import { DIST, EXACT_FOLDER, answer, exhaustive, launch, measureLogits, readVectors, test, visit } from "./browser.js";

const FLAGS = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];
const COUNT = 4;
const browser = await launch(FLAGS);
const { vectors } = await readVectors(EXACT_FOLDER);
const places = { "/": DIST, "/model/": EXACT_FOLDER };

/** Open the page with WebGPU. Without a WebGPU adapter the test is skipped. */
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
  assert.match(await page.textContent("#facts"), /^model on WebGPU\.$/);
  const long = vectors.at(-1);
  assert.ok(long.token_ids.length >= 32); // in one run, some versions of onnxruntime-web would be wrong
  for (const vector of [vectors[1], long]) {
    assert.ok((await measureLogits(page, vector)) < 1e-3);
    const { token_ids: tokens } = await answer(page, vector.messages, { temperature: 0, maxNewTokens: COUNT });
    assert.deepEqual(tokens, vector.greedy.token_ids.slice(0, COUNT));
  }
});

exhaustive("a session that returns to an earlier prompt answers like a new session", async (t) => {
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

exhaustive("two answers at once", async (t) => {
  // Two overlapping runs hang WebGPU in onnxruntime-web forever.
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
