/**
 * Logits to one token: penalties, temperature, top-k, top-p, min-p, draw; transformers' order.
 *
 * The same numbers are drawn as in Python. Weights may differ from numpy's in the last bit of
 * float32, whose exponential is approximated: where a draw falls that close to the border between
 * two tokens (once in some million tokens), the other one may come.
 */

import { GenerationError } from "./errors.js";
import { Penalties } from "./penalties.js";
import { Pcg64 } from "./random.js";

const FIRST_NUCLEUS = 256; // tokens tried first for top-p; most nuclei are smaller
const MOST_INSERTED = 512; // more than so many largest values are found by sorting

/** Chooses tokens, one after the other, for one answer. */
export class Sampler {
  #settings;
  #vocabSize;
  #random;
  #penalties;

  /**
   * @param {import("./settings.js").Settings} settings
   * @param {number} vocabSize  ids from here on are padding and are never chosen
   * @param {readonly number[]} promptIds  the tokens so far
   * @throws {import("./errors.js").SamplingError} a bias names an id that is no token.
   */
  constructor(settings, vocabSize, promptIds) {
    this.#settings = settings;
    this.#vocabSize = vocabSize;
    this.#random = new Pcg64(settings.seed);
    this.#penalties = new Penalties(settings, vocabSize, promptIds);
  }

  /**
   * Choose the next token.
   * @param {Float32Array} logits  [V], not changed
   * @throws {GenerationError} a logit is NaN, or none is finite.
   */
  choose(logits) {
    const scores = this.#penalties.apply(logits.subarray(0, this.#vocabSize));
    const best = findLargest(scores);
    const token = this.#settings.temperature === 0 ? best : this.#draw(scores, scores[best]);
    this.#penalties.add(token);
    return token;
  }

  /**
   * Count a token as chosen that was not left to the sampler.
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
    const place = draw(weights, this.#random.random());
    return ids ? ids[place] : place;
  }
}

/**
 * The index of the largest score, the first of equals.
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
    `the model gave ${logit} as its best logit where a finite number is expected; ` +
      "check the folder with `glm-run doctor`, or export it with `--dtype fp32`.",
  );
}

/**
 * Apply temperature, top-k, top-p and min-p.
 * @param {Float32Array} scores
 * @param {number} best
 * @param {import("./settings.js").Settings} settings  not greedy
 * @returns {{ ids: Uint32Array | null, weights: Float32Array }}  the largest weight is 1; no ids: all
 */
export function findCandidates(scores, best, settings) {
  /** @type {Uint32Array | null} */
  let ids = null;
  if (settings.topK > 0 && settings.topK < scores.length) {
    ids = selectTop(scores, settings.topK);
    scores = Float32Array.from(ids, (id) => scores[id]);
  }
  const temperature = Math.fround(Math.max(settings.temperature, 1e-30)); // below, float32 may read 0
  let weights = scores.map((score) => Math.exp(Math.fround(Math.fround(score - best) / temperature)));
  /** @param {Uint32Array} kept */
  const keep = (kept) => {
    const old = ids;
    ids = old ? kept.map((place) => old[place]) : kept;
    weights = Float32Array.from(kept, (place) => weights[place]);
  };
  if (settings.topP < 1) keep(selectNucleus(weights, settings.topP));
  if (settings.minP > 0) keep(findPlaces(weights, Math.fround(settings.minP))); // the best weighs 1
  return { ids, weights };
}

/**
 * Indices of the `count` largest values and of all that equal the last of them, rising.
 * @param {Float32Array} values
 * @param {number} count
 */
function selectTop(values, count) {
  return findPlaces(values, count < MOST_INSERTED ? insertLargest(values, count) : sortLargest(values, count));
}

/**
 * Indices of the values that are at least a floor.
 * @param {Float32Array} values
 * @param {number} floor
 */
function findPlaces(values, floor) {
  const places = [];
  for (let i = 0; i < values.length; i++) if (values[i] >= floor) places.push(i);
  return Uint32Array.from(places);
}

/**
 * The `count`-th largest value, from a short list of the largest that is kept in order.
 * @param {Float32Array} values
 * @param {number} count
 */
function insertLargest(values, count) {
  const largest = values.slice(0, count).sort(); // rising
  for (let i = count; i < values.length; i++) {
    const value = values[i];
    if (!(value > largest[0])) continue;
    let place = 0;
    while (place + 1 < count && largest[place + 1] < value) largest[place] = largest[++place];
    largest[place] = value;
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
 * The fewest largest weights that reach the share `topP` of their sum, largest first.
 * @param {Float32Array} weights
 * @param {number} topP
 */
function selectNucleus(weights, topP) {
  const target = topP * weights.reduce((sum, weight) => sum + weight, 0);
  for (let count = Math.min(FIRST_NUCLEUS, weights.length); ; count = Math.min(count * 8, weights.length)) {
    const top = selectTop(weights, count);
    const order = [...top].sort((left, right) => weights[right] - weights[left] || left - right);
    let reached = 0;
    for (let place = 0; place < order.length; place++) {
      reached += weights[order[place]];
      if (reached >= target) return Uint32Array.from(order.slice(0, place + 1));
    }
    if (order.length === weights.length) return Uint32Array.from(order);
  }
}

/**
 * Turn one number in [0, 1) into an index, distributed as `weights`.
 * @param {Float32Array} weights
 * @param {number} uniform
 */
function draw(weights, uniform) {
  const target = uniform * weights.reduce((sum, weight) => sum + weight, 0);
  let reached = 0;
  for (let place = 0; place < weights.length; place++) {
    reached += weights[place];
    if (reached > target) return place;
  }
  return weights.length - 1;
}
