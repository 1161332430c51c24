/** transformers.js loads the folder with the options of docs/node.md, and generates the same greedy tokens. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { AutoModelForCausalLM, AutoTokenizer, pipeline } from "@huggingface/transformers";

import { FOLDER, isSure, readJson, vectors } from "./folders.js";

const options = { subfolder: "", dtype: "fp32", local_files_only: true };
const { model: shape } = await readJson(join(FOLDER, "glm_manifest.json"));
const config = {
  model_type: "glm",
  num_hidden_layers: shape.num_layers,
  num_key_value_heads: shape.num_kv_heads,
  head_dim: shape.head_dim,
};
const tokenizer = await AutoTokenizer.from_pretrained(FOLDER, options);
const model = await AutoModelForCausalLM.from_pretrained(FOLDER, { ...options, config });
const padding = Array.from({ length: shape.vocab_size - shape.tokenizer_vocab_size }, (_, i) => [
  shape.tokenizer_vocab_size + i,
]);
const template = await readFile(join(FOLDER, "chat_template.jinja"), "utf8");

for (const vector of vectors.vectors) {
  const name = JSON.stringify(vector.rendered.slice(0, 60));

  test(`transformers.js: prompt ${name}`, () => {
    const wanted = { chat_template: template, tokenize: false, add_generation_prompt: true };
    const text = tokenizer.apply_chat_template(vector.messages, wanted);
    assert.equal(text, vector.rendered);
    const { input_ids: ids } = tokenizer(text, { add_special_tokens: false });
    assert.deepEqual([...ids.data].map(Number), vector.token_ids);
  });

  test(`transformers.js: greedy answer ${name}`, async () => {
    const inputs = tokenizer(vector.rendered, { add_special_tokens: false });
    const wanted = { do_sample: false, max_new_tokens: vectors.max_new_tokens, bad_words_ids: padding };
    const output = await model.generate({ ...inputs, ...wanted });
    const tokens = [...output.data].map(Number);
    const answer = tokens.slice(vector.token_ids.length);
    if (isSure(vector)) assert.deepEqual(answer, vector.greedy.token_ids);
    assert.ok(answer.length > 0);
  });
}

test("transformers.js: a pipeline pads prompts on the left and gives the same answers", async () => {
  const generator = await pipeline("text-generation", FOLDER, { ...options, config });
  const wanted = { do_sample: false, max_new_tokens: 16, bad_words_ids: padding };
  const given = { ...wanted, add_special_tokens: false, return_full_text: false };
  const prompts = vectors.vectors.map((vector) => vector.rendered);
  const together = await generator(prompts, given);
  assert.equal(generator.tokenizer.padding_side, "left");
  for (const [row, prompt] of prompts.entries()) {
    if (!isSure(vectors.vectors[row])) continue;
    assert.deepEqual(together[row], await generator(prompt, given));
  }
});
