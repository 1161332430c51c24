/**
 * Scores of tokens changed by what was said before: bias, repetition, presence and frequency.
 *
 * Rounded to float32 where numpy rounds, so that scores are those of the Python runtime.
 */

import { SamplingError } from "./errors.js";

const round = Math.fround;

/** What one answer's settings change of the scores, given the tokens so far. */
export class Penalties {
  #settings;
  #isActive;
  /** @type {Set<number>} */ #seen;
  /** @type {Map<number, number>} */ #counts = new Map();

  /**
   * @param {import("./settings.js").Settings} settings
   * @param {number} vocabSize  ids that may be chosen are below it
   * @param {readonly number[]} promptIds
   * @throws {SamplingError} a bias names an id that is no token.
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
        `logitBias names the id ${wrong[0]} where ids below ${vocabSize} are expected; ` +
          "take ids of this folder's tokenizer.",
      );
    }
  }

  /**
   * Change scores [V]; the given array stays as it is.
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
   * Remember a token of the answer.
   * @param {number} token
   */
  add(token) {
    if (!this.#isActive) return;
    this.#seen.add(token);
    this.#counts.set(token, (this.#counts.get(token) ?? 0) + 1);
  }
}
