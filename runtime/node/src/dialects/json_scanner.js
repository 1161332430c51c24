/** Reads a JSON object character by character, and notices the first one that cannot be JSON. */

import { isObject } from "../text_files.js";

const NUMBER = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$/;
const CONSTANTS = ["true", "false", "null"];
const WORD = "+-.0123456789eEtrufalsn";
const SPACES = " \t\r\n";

/** @typedef {"value" | "value or end" | "key" | "key or end" | "colon" | "comma or end"} Expected */

/** Finds the end of a JSON object, or of a list, that begins with the first character. */
export class JsonScanner {
  isBroken = false; // whether the text cannot be one
  /** @type {string[]} */ #open = [];
  /** @type {Expected} */ #expected = "value";
  #isString = false;
  #escape = ""; // an escape in a string that is not complete
  #word = ""; // a number or constant that is not complete
  #opening;

  /** @param {"{" | "["} [opening]  the first character */
  constructor(opening = "{") {
    this.#opening = opening;
  }

  /**
   * Take new text; return the index after the object, or that of a wrong character.
   * @param {string} text
   * @returns {number | null}
   */
  findEnd(text) {
    for (let index = 0; index < text.length; index++) {
      this.isBroken = !this.#take(text[index]);
      if (this.isBroken) return index;
      if (!this.#open.length) return index + 1;
    }
    return null;
  }

  /** @param {string} character */
  #take(character) {
    if (this.#isString) return this.#takeInString(character);
    const isWord = this.#word !== "" || this.#expected.startsWith("value");
    if (WORD.includes(character) && isWord && this.#open.length) {
      this.#word += character;
      return true;
    }
    if (!this.#endWord()) return false;
    return (SPACES.includes(character) && this.#open.length > 0) || this.#takeMark(character);
  }

  /** @param {string} character */
  #takeInString(character) {
    if (this.#escape) {
      const isDigit = this.#escape.length > 1;
      this.#escape += character;
      if (this.#escape.length === (this.#escape[1] === "u" ? 6 : 2)) this.#escape = "";
      return (isDigit ? /[0-9a-fA-F]/ : /["\\/bfnrtu]/).test(character);
    }
    if (character === "\\") this.#escape = character;
    else if (character === '"') this.#isString = false;
    return character >= " ";
  }

  /** End a number or constant; return false if it is none. */
  #endWord() {
    const word = this.#word;
    this.#word = "";
    if (!word) return true;
    this.#expected = "comma or end";
    return CONSTANTS.includes(word) || NUMBER.test(word);
  }

  /** @param {string} character */
  #takeMark(character) {
    if (character === '"') return this.#beginString();
    if (character === "{" || character === "[") return this.#beginNested(character);
    if (character === "}" || character === "]") {
      if (!this.#expected.endsWith("end") || this.#open.pop() !== character) return false;
      this.#expected = "comma or end";
      return true;
    }
    const wanted = character === ":" ? "colon" : character === "," ? "comma or end" : "";
    if (this.#expected !== wanted) return false;
    this.#expected = character === "," && this.#open[this.#open.length - 1] === "}" ? "key" : "value";
    return true;
  }

  #beginString() {
    if (!this.#open.length || /colon|comma/.test(this.#expected)) return false;
    this.#expected = this.#expected.startsWith("key") ? "colon" : "comma or end";
    this.#isString = true;
    return true;
  }

  /** @param {string} character */
  #beginNested(character) {
    const isFirst = !this.#open.length;
    if (!this.#expected.startsWith("value") || (isFirst && character !== this.#opening)) return false;
    this.#open.push(character === "{" ? "}" : "]");
    this.#expected = character === "{" ? "key or end" : "value or end";
    return true;
  }
}

/**
 * Whether a text is a JSON object.
 * @param {string} text
 */
export function isObjectText(text) {
  return isObject(readJson(text));
}

/**
 * The value of a JSON text; `undefined` if it is none.
 * @param {string} text
 * @returns {unknown}
 */
export function readJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
