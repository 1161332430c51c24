/** Whether WebGPU computes what the graph says, before anybody reads an answer. */

import { Decoder, firstLine } from "glm-runtime/core";

import { BackendError, WASM_ADVICE } from "./errors.js";

// Kernels that add in another order differ by less than a hundredth, int8 activations included; the
// wrong results that were met with differed by a seventh and more.
const LARGEST_DIFFERENCE = 0.05; // of the logits' norm

/**
 * Read some tokens at once, and in two parts: both must give the same logits.
 * @param {import("glm-runtime/core").Graph} graph
 * @param {import("glm-runtime/core").ModelEntry} model
 * @throws {BackendError} a run fails, or they differ.
 */
export async function probeGraph(graph, model) {
  const tokens = Array.from({ length: graph.chunkTokens }, (_, place) => (place * 7919 + 13) % model.tokenizerVocabSize);
  const half = tokens.length >> 1;
  try {
    const whole = await readLogits(graph, model, [tokens]);
    const parts = await readLogits(graph, model, [tokens.slice(0, half), tokens.slice(half, -1), tokens.slice(-1)]);
    const difference = measureDifference(whole, parts);
    if (difference < LARGEST_DIFFERENCE) return;
    throw new BackendError(
      `WebGPU gives logits that differ by ${difference.toPrecision(2)} of their norm where none should; ${WASM_ADVICE}`,
    );
  } catch (error) {
    if (error instanceof BackendError) throw error;
    throw new BackendError(`WebGPU does not run this graph (${firstLine(error)}); ${WASM_ADVICE}`, error);
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
 * NaN where a logit is none.
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
