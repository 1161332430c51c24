/** The folder's own vectors: rendered prompts, tokens, logits, greedy and sampled answers. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { load } from "glm-runtime";

import { Decoder } from "../src/decoder.js";
import { FOLDER, collect, vectors } from "./folders.js";

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
    const squares = (values) => values.reduce((sum, value) => sum + value * value, 0);
    const differences = vector.logit_ids.map((id, i) => logits[id] - vector.logits[i]);
    // Activations are rounded to int8 in both; another version's kernels may add in another order.
    assert.ok(squares(differences) <= 0.01 ** 2 * squares(vector.logits), `differ by ${differences}`);
  });

  test(`greedy answer ${name}`, async () => {
    const options = { temperature: 0, maxNewTokens: vectors.max_new_tokens };
    const { tool_calls: calls, ...answer } = await collect(model.chat(vector.messages, options));
    assert.deepEqual(answer, vector.greedy);
    assert.deepEqual(calls, []);
  });

  test(`sampled answer ${name}`, async () => {
    const { temperature, top_k: topK, top_p: topP, seed } = vectors.sampling;
    const options = { temperature, topK, topP, seed, maxNewTokens: vectors.max_new_tokens };
    const { tool_calls: _, ...answer } = await collect(model.chat(vector.messages, options));
    assert.deepEqual(answer, vector.sampled);
  });
}
