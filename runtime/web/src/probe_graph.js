/** Tests whether WebGPU computes correct logits, before the first answer. */

import { Decoder, firstLine } from "glm-runtime/core";

import { BackendError, WASM_ADVICE } from "./errors.js";

// Relative to the norm of the logits. Correct kernels differ by less than 0.01, also with int8
// activations, because they add in another order. The wrong results that we saw differed by 0.14 or more.
const LARGEST_DIFFERENCE = 0.05;

/**
 * Compute the logits of some tokens in one run and in three runs; both must give the same result.
 * @param {import("glm-runtime/core").Graph} graph
 * @param {import("glm-runtime/core").ModelEntry} model
 * @throws {BackendError} a run fails, or the logits differ.
 */
export async function probeGraph(graph, model) {
  const tokens = Array.from({ length: graph.chunkTokens }, (_, index) => (index * 7919 + 13) % model.tokenizerVocabSize);
  const half = tokens.length >> 1;
  try {
    const whole = await readLogits(graph, model, [tokens]);
    const parts = await readLogits(graph, model, [tokens.slice(0, half), tokens.slice(half, -1), tokens.slice(-1)]);
    const difference = measureDifference(whole, parts);
    if (difference < LARGEST_DIFFERENCE) return;
    throw new BackendError(
      `WebGPU computes wrong logits here (relative error ${difference.toPrecision(2)}); ${WASM_ADVICE}`,
    );
  } catch (error) {
    if (error instanceof BackendError) throw error;
    throw new BackendError(`WebGPU cannot run this graph (${firstLine(error)}); ${WASM_ADVICE}`, error);
  }
}

/**
 * @param {import("glm-runtime/core").Graph} graph
 * @param {import("glm-runtime/core").ModelEntry} model
 * @param {number[][]} portions
 */
async function readLogits(graph, model, portions) {
  const decoder = new Decoder(graph, model);
  /** @type {Float32Array} */
  let logits = new Float32Array(0);
  try {
    for (const portion of portions) logits = await decoder.append(portion);
    return logits.slice(0, model.tokenizerVocabSize);
  } finally {
    decoder.release();
  }
}

/**
 * The norm of the difference relative to the norm of `left`; NaN if a logit is NaN.
 * @param {Float32Array} left
 * @param {Float32Array} right
 */
function measureDifference(left, right) {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < left.length; i++) {
    difference += (left[i] - right[i]) ** 2;
    norm += left[i] ** 2;
  }
  return Math.sqrt(difference / norm);
}
