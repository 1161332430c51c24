/**
 * Changes logits by the logit bias and the repetition, presence and frequency penalties.
 *
 * Results are rounded to float32 after each operation, as numpy does, so that they equal the Python runtime's.
 */

import { SamplingError } from "./errors.js";

const round = Math.fround;

/** The penalties of one answer. */
export class Penalties {
  #settings;
  #isActive;
  /** @type {Set<number>} */ #seen;
  /** @type {Map<number, number>} */ #counts = new Map();

  /**
   * @param {import("./settings.js").Settings} settings
   * @param {number} vocabSize  number of tokens in the tokenizer's vocabulary
   * @param {readonly number[]} promptIds
   * @throws {SamplingError} logitBias contains an invalid token id.
   */
  constructor(settings, vocabSize, promptIds) {
    this.#settings = settings;
    this.#seen = new Set(promptIds);
    const { repetitionPenalty, presencePenalty, frequencyPenalty, logitBias } = settings;
    this.#isActive = Boolean(
      repetitionPenalty !== 1 || presencePenalty || frequencyPenalty || logitBias.length,
    );
    const wrong = logitBias.find(([id]) => id >= vocabSize);
    if (wrong) {
      throw new SamplingError(
        `logitBias contains the token id ${wrong[0]} where ids below ${vocabSize} are expected; ` +
          "use ids of this folder's tokenizer.",
      );
    }
  }

  /**
   * Apply the penalties to scores [V]; the given array is not modified.
   * @param {Float32Array} scores
   * @returns {Float32Array}
   */
  apply(scores) {
    if (!this.#isActive) return scores;
    const { presencePenalty, frequencyPenalty, logitBias } = this.#settings;
    const changed = scores.slice();
    for (const [id, bias] of logitBias) changed[id] += round(bias);
    const penalty = round(this.#settings.repetitionPenalty); // arXiv:1909.05858, section 4.1
    if (penalty !== 1) {
      for (const id of this.#seen) changed[id] = changed[id] < 0 ? changed[id] * penalty : changed[id] / penalty;
    }
    for (const [id, count] of this.#counts) changed[id] -= round(presencePenalty + frequencyPenalty * count);
    return changed;
  }

  /**
   * Count a token of the answer.
   * @param {number} token
   */
  add(token) {
    if (!this.#isActive) return;
    this.#seen.add(token);
    this.#counts.set(token, (this.#counts.get(token) ?? 0) + 1);
  }
}
