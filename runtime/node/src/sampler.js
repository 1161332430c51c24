/**
 * Chooses a token from logits: penalties, temperature, top-k, top-p, min-p, random draw, in transformers' order.
 *
 * The random numbers are those of the Python runtime. numpy approximates the float32 exponential, so
 * that weights may differ from numpy's in the last bit. If a draw falls that close to the boundary
 * between two tokens (about once in a million tokens), Python chooses the other token.
 */

import { GenerationError } from "./errors.js";
import { Penalties } from "./penalties.js";
import { Pcg64 } from "./random.js";

const FIRST_NUCLEUS_SIZE = 256; // top-p first looks at this number of tokens, which is enough most of the time
const MAX_INSERTION_COUNT = 512; // from this number of largest values on, sorting is faster than insertion

/** Chooses the tokens of one answer. */
export class Sampler {
  #settings;
  #vocabSize;
  #random;
  #penalties;

  /**
   * @param {import("./settings.js").Settings} settings
   * @param {number} vocabSize  ids from vocabSize on are padding and are never chosen
   * @param {readonly number[]} promptIds  the tokens of the prompt
   * @throws {import("./errors.js").SamplingError} logitBias contains an invalid token id.
   */
  constructor(settings, vocabSize, promptIds) {
    this.#settings = settings;
    this.#vocabSize = vocabSize;
    this.#random = new Pcg64(settings.seed);
    this.#penalties = new Penalties(settings, vocabSize, promptIds);
  }

  /**
   * Choose the next token.
   * @param {Float32Array} logits  [V]; not modified
   * @throws {GenerationError} a logit is NaN, or no logit is finite.
   */
  choose(logits) {
    const scores = this.#penalties.apply(logits.subarray(0, this.#vocabSize));
    const best = findLargest(scores);
    const token = this.#settings.temperature === 0 ? best : this.#draw(scores, scores[best]);
    this.#penalties.add(token);
    return token;
  }

  /**
   * Count a token for the penalties that was not chosen by the sampler.
   * @param {number} token
   */
  accept(token) {
    this.#penalties.add(token);
  }

  /**
   * @param {Float32Array} scores
   * @param {number} best
   */
  #draw(scores, best) {
    const { ids, weights } = findCandidates(scores, best, this.#settings);
    const index = draw(weights, this.#random.random());
    return ids ? ids[index] : index;
  }
}

/**
 * The index of the largest score; the first one if several are equal.
 * @param {Float32Array} scores
 * @throws {GenerationError} a score is NaN, or all are -Infinity.
 */
export function findLargest(scores) {
  let index = 0;
  for (let i = 0; i < scores.length; i++) {
    if (scores[i] > scores[index]) index = i;
    else if (scores[i] !== scores[i]) requireFinite(scores[i]);
  }
  requireFinite(scores[index]);
  return index;
}

/** @param {number} logit */
function requireFinite(logit) {
  if (Number.isFinite(logit)) return;
  throw new GenerationError(
    `the model's largest logit is ${logit} where a finite number is expected; ` +
      "check the folder with `glm-run doctor`, and export a folder in float16 again with " +
      "`--dtype fp32`.",
  );
}

/**
 * Apply temperature, top-k, top-p and min-p.
 * @param {Float32Array} scores
 * @param {number} best
 * @param {import("./settings.js").Settings} settings  not greedy
 * @returns {{ ids: Uint32Array | null, weights: Float32Array }}  unnormalized probabilities, of which the largest is 1; `ids` is null if every token is a candidate
 */
export function findCandidates(scores, best, settings) {
  /** @type {Uint32Array | null} */
  let ids = null;
  if (settings.topK > 0 && settings.topK < scores.length) {
    ids = selectTop(scores, settings.topK);
    scores = Float32Array.from(ids, (id) => scores[id]);
  }
  const temperature = Math.fround(Math.max(settings.temperature, 1e-30)); // smaller numbers may become 0 in float32
  let weights = scores.map((score) => Math.exp(Math.fround(Math.fround(score - best) / temperature)));
  /** @param {Uint32Array} kept */
  const keep = (kept) => {
    const old = ids;
    ids = old ? kept.map((index) => old[index]) : kept;
    weights = Float32Array.from(kept, (index) => weights[index]);
  };
  if (settings.topP < 1) keep(selectNucleus(weights, settings.topP));
  if (settings.minP > 0) keep(findIndices(weights, Math.fround(settings.minP))); // the largest weight is 1
  return { ids, weights };
}

/**
 * Indices of the `count` largest values, and of all values equal to the smallest of them, in ascending order.
 * @param {Float32Array} values
 * @param {number} count
 */
function selectTop(values, count) {
  return findIndices(values, count < MAX_INSERTION_COUNT ? insertLargest(values, count) : sortLargest(values, count));
}

/**
 * Indices of the values that are at least `floor`, in ascending order.
 * @param {Float32Array} values
 * @param {number} floor
 */
function findIndices(values, floor) {
  const indices = [];
  for (let i = 0; i < values.length; i++) if (values[i] >= floor) indices.push(i);
  return Uint32Array.from(indices);
}

/**
 * The `count`-th largest value, found by insertion into a sorted list of `count` values.
 * @param {Float32Array} values
 * @param {number} count
 */
function insertLargest(values, count) {
  const largest = values.slice(0, count).sort(); // ascending
  for (let i = count; i < values.length; i++) {
    const value = values[i];
    if (!(value > largest[0])) continue;
    let index = 0;
    while (index + 1 < count && largest[index + 1] < value) largest[index] = largest[++index];
    largest[index] = value;
  }
  return largest[0];
}

/**
 * @param {Float32Array} values
 * @param {number} count
 */
function sortLargest(values, count) {
  return values.slice().sort()[values.length - count];
}

/**
 * Indices of the smallest set of weights that add up to `topP` of their sum, in descending order of weight.
 * @param {Float32Array} weights
 * @param {number} topP
 */
function selectNucleus(weights, topP) {
  const target = topP * weights.reduce((sum, weight) => sum + weight, 0);
  for (let count = Math.min(FIRST_NUCLEUS_SIZE, weights.length); ; count = Math.min(count * 8, weights.length)) {
    const top = selectTop(weights, count);
    const order = [...top].sort((left, right) => weights[right] - weights[left] || left - right);
    let reached = 0;
    for (let index = 0; index < order.length; index++) {
      reached += weights[order[index]];
      if (reached >= target) return Uint32Array.from(order.slice(0, index + 1));
    }
    if (order.length === weights.length) return Uint32Array.from(order);
  }
}

/**
 * Choose an index with a probability proportional to its weight.
 * @param {Float32Array} weights
 * @param {number} uniform  a random number in [0, 1)
 */
function draw(weights, uniform) {
  const target = uniform * weights.reduce((sum, weight) => sum + weight, 0);
  let reached = 0;
  for (let index = 0; index < weights.length; index++) {
    reached += weights[index];
    if (reached > target) return index;
  }
  return weights.length - 1;
}
