/** The folder's vectors: rendered prompts, tokens, logits, greedy and sampled answers. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { load } from "glm-runtime";

import { Decoder } from "../src/decoder.js";
import { FOLDER, boundOf, collect, isExact, isSure, vectors } from "./folders.js";

const model = await load(FOLDER, { verify: true });

for (const vector of vectors.vectors) {
  const name = JSON.stringify(vector.rendered.slice(0, 60));

  test(`prompt ${name}`, () => {
    assert.equal(model.chatTemplate.render(vector.messages), vector.rendered);
    assert.deepEqual(model.tokenizer.encode(vector.rendered), vector.token_ids);
    assert.deepEqual(model.prepareChat(vector.messages).promptIds, vector.token_ids);
  });

  test(`logits ${name}`, async () => {
    const decoder = new Decoder(model.graph, model.manifest.model);
    const logits = await decoder.append(vector.token_ids);
    const difference = Math.max(...vector.logit_ids.map((id, i) => Math.abs(logits[id] - vector.logits[i])));
    assert.ok(difference < boundOf(vector), `${difference} where ${boundOf(vector)} is allowed`);
  });

  test(`greedy answer ${name}`, async () => {
    const options = { temperature: 0, maxNewTokens: vectors.max_new_tokens };
    const { tool_calls: calls, ...answer } = await collect(model.chat(vector.messages, options));
    if (isSure(vector)) assert.deepEqual(answer, vector.greedy);
    assert.ok(answer.token_ids.length > 0);
    assert.deepEqual(calls, []);
  });

  test(`sampled answer ${name}`, async () => {
    const { temperature, top_k: topK, top_p: topP, seed } = vectors.sampling;
    const options = { temperature, topK, topP, seed, maxNewTokens: vectors.max_new_tokens };
    const { tool_calls: _, ...answer } = await collect(model.chat(vector.messages, options));
    if (isExact(vector)) assert.deepEqual(answer, vector.sampled);
    assert.ok(answer.token_ids.length > 0);
  });
}

test("some tokens were compared", () => {
  // A folder with random weights has narrow margins.
  const isTrained = vectors.vectors.some((vector) => vector.smallest_margin > 1);
  assert.ok(!isTrained || vectors.vectors.some(isSure));
});
