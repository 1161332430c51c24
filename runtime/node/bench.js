/**
 * Measures prefill and decode on this computer: `node bench.js FOLDER [prompt tokens] [new tokens] [rounds]`.
 *
 * Each round decodes the same prompt twice: with the KV cache updated in place, as this package does,
 * and with the outputs of each run copied to the inputs of the next run.
 * Prints the medians of all rounds, and one JSON object on the last line.
 */

import { join } from "node:path";

import { Tensor } from "onnxruntime-node";

import { load } from "glm-runtime";

import { Decoder } from "./src/decoder.js";
import { findLargest } from "./src/sampler.js";

const [folder, ...numbers] = process.argv.slice(2);
if (!folder) throw new Error("a folder is missing; write: node bench.js FOLDER [prompt tokens] [new tokens] [rounds]");
const [promptTokens = 128, newTokens = 64, rounds = 5] = numbers.map(Number);

const loading = performance.now();
const model = await load(folder);
const loadSeconds = (performance.now() - loading) / 1000;
const shape = model.manifest.model;
const chunk = model.graph.chunkTokens;
const prompt = Array.from({ length: promptTokens }, (_, i) => (i * 7919 + 13) % shape.tokenizerVocabSize);

/** Decodes with the outputs of each run as the inputs of the next one. */
class CopyingDecoder {
  /** @type {Record<string, Tensor>} */ #cache = {};
  length = 0;

  constructor() {
    for (let layer = 0; layer < shape.numLayers; layer++) {
      for (const part of ["key", "value"]) {
        const dims = [1, shape.numKvHeads, 0, shape.headDim];
        this.#cache[`past_key_values.${layer}.${part}`] = new Tensor("float32", new Float32Array(0), dims);
      }
    }
  }

  /** @param {number[]} tokens */
  async append(tokens) {
    this.length += tokens.length;
    const { logits, ...present } = await model.graph.run({
      input_ids: new Tensor("int64", BigInt64Array.from(tokens, BigInt), [1, tokens.length]),
      attention_mask: new Tensor("int64", new BigInt64Array(this.length).fill(1n), [1, this.length]),
      ...this.#cache,
    });
    for (const [name, tensor] of Object.entries(present)) {
      this.#cache[name.replace("present", "past_key_values")] = tensor;
    }
    return /** @type {Float32Array} */ (logits.data);
  }
}

/**
 * @param {Decoder | CopyingDecoder} decoder
 * @returns {Promise<{ prefill: number, decode: number, last: number }>}  both rates in tokens per second, and the last token
 */
async function measure(decoder) {
  const start = performance.now();
  let logits = new Float32Array(0);
  for (let i = 0; i < promptTokens; i += chunk) logits = await decoder.append(prompt.slice(i, i + chunk));
  const between = performance.now();
  let token = 0;
  for (let i = 0; i < newTokens; i++) {
    token = findLargest(logits.subarray(0, shape.tokenizerVocabSize));
    logits = await decoder.append([token]);
  }
  const seconds = (performance.now() - between) / 1000;
  return { prefill: (promptTokens * 1000) / (between - start), decode: newTokens / seconds, last: token };
}

await measure(new Decoder(model.graph, shape)); // warm-up
const inPlace = [];
const copying = [];
for (let round = 0; round < rounds; round++) {
  inPlace.push(await measure(new Decoder(model.graph, shape)));
  copying.push(await measure(new CopyingDecoder()));
  if (inPlace[round].last !== copying[round].last) throw new Error("the two decoders chose different tokens");
}

/** @param {number[]} values */
const median = (values) => values.sort((left, right) => left - right)[values.length >> 1];
/** @param {{ prefill: number, decode: number }[]} results */
const summarize = (results) => ({
  decode_tokens_per_second: median(results.map((one) => one.decode)),
  prefill_tokens_per_second: median(results.map((one) => one.prefill)),
});
const report = {
  folder: join(folder),
  node: process.version,
  prompt_tokens: promptTokens,
  new_tokens: newTokens,
  rounds,
  load_seconds: loadSeconds,
  in_place: summarize(inPlace),
  copied: summarize(copying),
  peak_rss_bytes: process.resourceUsage().maxRSS * 1024,
};
for (const [name, { decode_tokens_per_second: decode, prefill_tokens_per_second: prefill }] of Object.entries({
  "in place": report.in_place,
  copied: report.copied,
})) {
  console.log(`${name.padEnd(10)} decode ${decode.toFixed(1)} tokens/s, prefill ${prefill.toFixed(1)} tokens/s`);
}
console.log(JSON.stringify(report));
