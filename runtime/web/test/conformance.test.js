/** The folder's own vectors: rendered prompts, tokens, logits, greedy and sampled answers. */

import assert from "node:assert/strict";

import {
  DIST,
  EXACT_FOLDER,
  FOLDER,
  answer,
  boundOf,
  isSure,
  launch,
  measureLogits,
  open,
  readVectors,
  test,
  visit,
} from "./browser.js";

const browser = await launch();

for (const threads of [1, 2]) {
  test(`activations in float32, threads: ${threads}`, async (t) => {
    const { page } = await visit(t, browser, { places: { "/": DIST, "/model/": EXACT_FOLDER }, query: `?threads=${threads}` });
    assert.equal(await page.evaluate(() => crossOriginIsolated && glm.model.threads), threads);
    const { vectors, sampling, max_new_tokens: maxNewTokens } = await readVectors(EXACT_FOLDER);
    const { temperature, top_k: topK, top_p: topP, seed } = sampling;
    for (const vector of vectors) {
      const ids = await page.evaluate((messages) => glm.model.prepareChat(messages), vector.messages);
      assert.deepEqual(ids, vector.token_ids);
      assert.deepEqual(await page.evaluate((text) => glm.model.encode(text), vector.rendered), vector.token_ids);
      assert.ok((await measureLogits(page, vector)) < 1e-4); // sums of some hundred products, in another order
      const greedy = await answer(page, vector.messages, { temperature: 0, maxNewTokens });
      assert.deepEqual(greedy, vector.greedy);
      const sampled = await answer(page, vector.messages, { temperature, topK, topP, seed, maxNewTokens });
      assert.deepEqual(sampled, vector.sampled);
    }
  });
}

test("activations that the vectors round to int8, and WebAssembly does not", async (t) => {
  const { page } = await visit(t, browser);
  const { vectors, max_new_tokens: maxNewTokens } = await readVectors(FOLDER);
  let compared = 0;
  for (const vector of vectors) {
    assert.ok((await measureLogits(page, vector)) < boundOf(vector));
    if (!isSure(vector)) continue;
    compared++;
    assert.deepEqual(await answer(page, vector.messages, { temperature: 0, maxNewTokens }), vector.greedy);
  }
  assert.ok(compared >= 1);
});

test("another folder takes the place of the one that is open", async (t) => {
  const { page } = await visit(t, browser, { places: { "/": DIST, "/model/": FOLDER, "/other/": EXACT_FOLDER } });
  assert.match((await open(page, "other/")).label, /\/other$/);
  const { vectors, max_new_tokens: maxNewTokens } = await readVectors(EXACT_FOLDER);
  assert.deepEqual(await answer(page, vectors[1].messages, { temperature: 0, maxNewTokens }), vectors[1].greedy);
});
