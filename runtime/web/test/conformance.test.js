/** The folder's vectors: rendered prompts, tokens, logits, greedy and sampled answers. */

import assert from "node:assert/strict";

import {
  DIST,
  EXACT_FOLDER,
  FOLDER,
  answer,
  boundOf,
  exhaustive,
  isSure,
  launch,
  measureLogits,
  open,
  readVectors,
  test,
  visit,
} from "./browser.js";

const browser = await launch();

for (const [threads, count, register] of [
  [2, 2, test], // the shortest answers
  [1, 4, exhaustive],
  [2, 4, exhaustive],
]) {
  register(`float activations, threads: ${threads}`, async (t) => {
    const { page } = await visit(t, browser, { places: { "/": DIST, "/model/": EXACT_FOLDER }, query: `?threads=${threads}` });
    assert.equal(await page.evaluate(() => crossOriginIsolated && glm.model.threads), threads);
    const { vectors, sampling, max_new_tokens: maxNewTokens } = await readVectors(EXACT_FOLDER);
    const { temperature, top_k: topK, top_p: topP, seed } = sampling;
    vectors.sort((left, right) => left.greedy.token_ids.length - right.greedy.token_ids.length);
    for (const vector of vectors.slice(0, count)) {
      const ids = await page.evaluate((messages) => glm.model.prepareChat(messages), vector.messages);
      assert.deepEqual(ids, vector.token_ids);
      assert.deepEqual(await page.evaluate((text) => glm.model.encode(text), vector.rendered), vector.token_ids);
      assert.ok((await measureLogits(page, vector)) < 1e-4); // kernels add products in different orders
      const greedy = await answer(page, vector.messages, { temperature: 0, maxNewTokens });
      assert.deepEqual(greedy, vector.greedy);
      const sampled = await answer(page, vector.messages, { temperature, topK, topP, seed, maxNewTokens });
      assert.deepEqual(sampled, vector.sampled);
    }
  });
}

test("activations that are int8 in the vectors, and float in WebAssembly", async (t) => {
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

exhaustive("another folder takes the place of the one that is open", async (t) => {
  const { page } = await visit(t, browser, { places: { "/": DIST, "/model/": FOLDER, "/other/": EXACT_FOLDER } });
  assert.match((await open(page, "other/")).label, /\/other$/);
  const { vectors, max_new_tokens: maxNewTokens } = await readVectors(EXACT_FOLDER);
  assert.deepEqual(await answer(page, vectors[1].messages, { temperature: 0, maxNewTokens }), vectors[1].greedy);
});
