/**
 * Keeps names of control tokens in a user's text from becoming control tokens.
 *
 * A message may contain `<|user|>`, and the tokenizer would encode it as the beginning of a turn. Marks
 * before and after each such name in messages and tools show afterwards, in the text of the prompt,
 * which names the template wrote. Corresponds to control_marks.py in glm_runtime.
 */

import { PromptError } from "./errors.js";
import { isObject } from "./text_files.js";
import { strip } from "./white_space.js";

// Code points that are no characters; texts do not contain them.
const START = "\ufdd0";
const END = "\ufdd1";

/** The names of a tokenizer's control tokens. */
export class ControlMarks {
  #names;
  #parts;

  /** @param {readonly string[]} names */
  constructor(names) {
    const ordered = names.filter((name) => strip(name)).sort((left, right) => right.length - left.length);
    const pattern = ordered.map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|") || "(?!)";
    this.#names = new RegExp(pattern, "g");
    this.#parts = new RegExp(`${START}(${pattern})${END}|(${pattern})|[${START}${END}]`, "g");
  }

  /**
   * Mark all names in a text, or in the texts of lists and of an object's keys and values.
   * @template T
   * @param {T} value
   * @returns {T}
   */
  mark(value) {
    /** @type {any} */
    let marked = value;
    if (typeof value === "string") marked = removeMarks(value).replace(this.#names, `${START}$&${END}`);
    else if (Array.isArray(value)) marked = value.map((part) => this.mark(part));
    else if (isObject(value)) {
      const entries = Object.entries(value).map(([key, part]) => [this.mark(key), this.mark(part)]);
      marked = Object.fromEntries(entries);
    }
    return marked;
  }

  /**
   * The parts of a rendered prompt without the marks, and whether each is a control token.
   * @param {string} text
   * @returns {Generator<[isControl: boolean, part: string]>}
   */
  *divide(text) {
    let plain = "";
    let last = 0;
    for (const match of text.matchAll(this.#parts)) {
      const [whole, marked, name] = match;
      plain += text.slice(last, match.index) + (marked ?? "");
      last = match.index + whole.length;
      if (!name) continue;
      yield [false, plain];
      yield [true, name];
      plain = "";
    }
    yield [false, plain + text.slice(last)];
  }
}

/**
 * Check that a template did not write marks as escapes, where they would not be found.
 * @param {string} text
 * @returns {string}
 * @throws {PromptError} it did.
 */
export function requireMarks(text) {
  if (!text.toLowerCase().includes("\\ufdd0")) return text;
  throw new PromptError(
    "the model's chat template writes texts with escapes, in which control tokens of messages cannot be " +
      "found; turn isSanitized off.",
  );
}

/**
 * A prompt without its marks.
 * @param {string} text
 */
export function removeMarks(text) {
  return text.replaceAll(START, "").replaceAll(END, "");
}

/**
 * Whether a prompt has marks; otherwise it is encoded as it is.
 * @param {string} text
 */
export function hasMarks(text) {
  return text.includes(START) || text.includes(END);
}
