/**
 * Reads the arguments of a Python call while they arrive, and writes them as a JSON object.
 *
 * The arguments are literals: strings without a prefix, numbers as JSON writes them, `True`, `False`,
 * `None`, lists, and dictionaries with strings as keys. All else is refused, and nothing is evaluated.
 */

import { isObject } from "../text_files.js";

const NUMBER = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$/;
const NAME = /^[A-Za-z_\u0080-\uffff][A-Za-z_0-9\u0080-\uffff]*$/;
const CONSTANTS = new Map([
  ["True", "true"],
  ["False", "false"],
  ["None", "null"],
]);
const SPACES = " \t\r\n";
const MARKS = "'\"()[]{}=:,";
const ESCAPED = new Map([..."abfnrtv\\'\""].map((key, index) => [key, "\x07\b\f\n\r\t\v\\'\""[index]]));
ESCAPED.set("\n", "");
/** @type {Record<string, number>} */
const HEX_LENGTHS = { x: 2, u: 4, U: 8 };

/** @typedef {"item" | "equals" | "colon" | "value" | "comma"} Expected  an item or a comma may be an end */

/** Reads arguments from the character after the opening parenthesis on. */
export class ArgumentScanner {
  isBroken = false; // whether the text cannot be such arguments
  json = ""; // the arguments as they are read, without the opening brace
  #positional;
  #names;
  #open = [")"];
  #counts; // items of each nested list or object
  /** @type {Expected} */ #expected = "item";
  #quote = ""; // of the string that is being read
  #string = "";
  #isKey = false;
  #escape = "";
  #word = "";

  /**
   * @param {readonly string[]} positional  names of the parameters that may be given without a name
   * @param {readonly string[]} [before]  names that the object has already
   */
  constructor(positional, before = []) {
    this.#positional = [...positional];
    this.#names = new Set(before);
    this.#counts = [before.length];
  }

  /**
   * Take new text; return the index after the parenthesis that closes the call.
   * @param {string} text
   * @returns {number | null}
   */
  read(text) {
    for (let index = 0; index < text.length; index++) {
      this.isBroken = !this.#take(text[index]);
      if (this.isBroken) return index;
      if (!this.#open.length) return index + 1;
    }
    return null;
  }

  get #inner() {
    return this.#open[this.#open.length - 1];
  }

  /**
   * Take one character; return false if it is wrong here.
   * @param {string} character
   * @returns {boolean}
   */
  #take(character) {
    if (this.#quote) return this.#takeInString(character);
    const isSpace = SPACES.includes(character);
    if (!isSpace && !MARKS.includes(character)) {
      this.#word += character;
      return this.#expected === "item" || this.#expected === "value";
    }
    if (this.#word && !this.#endWord(character)) return false;
    return isSpace || this.#takeMark(character);
  }

  /** @param {string} character */
  #takeMark(character) {
    if (character === "'" || character === '"') return this.#beginString(character);
    if (character === "[" || character === "{") return this.#beginNested(character);
    if (")]}".includes(character)) return this.#endNested(character);
    if (character === "," && this.#expected === "comma") return this.#write("", "item");
    if (character === ":" && this.#expected === "colon") return this.#write(": ", "value");
    return character === "=" && this.#expected === "equals" && this.#write("", "value");
  }

  /**
   * Take a word as a constant, a number, or a parameter's name.
   * @param {string} after
   */
  #endWord(after) {
    const word = this.#word;
    this.#word = "";
    const value = CONSTANTS.get(word) ?? (NUMBER.test(word) ? word : undefined);
    if (value !== undefined) {
      return !"'\"=([{".includes(after) && this.#beginValue() && this.#write(value, "comma");
    }
    const isName = this.#expected === "item" && this.#inner === ")" && NAME.test(word);
    if (!isName || this.#names.has(word)) return false;
    this.#positional = [];
    this.#names.add(word);
    return this.#write(`${this.#comma()}${JSON.stringify(word)}: `, "equals");
  }

  /** Write what stands before a value; return false if none may stand here. */
  #beginValue() {
    if (this.#expected === "value") return true;
    if (this.#expected !== "item" || this.#inner === "}") return false;
    if (this.#inner === "]") return this.#write(this.#comma(), "value");
    const name = this.#positional.shift();
    if (name === undefined || this.#names.has(name)) return false;
    this.#names.add(name);
    return this.#write(`${this.#comma()}${JSON.stringify(name)}: `, "value");
  }

  /** @param {string} quote */
  #beginString(quote) {
    this.#isKey = this.#expected === "item" && this.#inner === "}";
    if (!this.#isKey && !this.#beginValue()) return false;
    this.#quote = quote;
    this.#string = "";
    return this.#write(this.#isKey ? this.#comma() : "", "value");
  }

  /** @param {string} character */
  #beginNested(character) {
    if (!this.#beginValue()) return false;
    this.#open.push(character === "[" ? "]" : "}");
    this.#counts.push(0);
    return this.#write(character, "item");
  }

  /** @param {string} character */
  #endNested(character) {
    if ((this.#expected !== "item" && this.#expected !== "comma") || this.#inner !== character) return false;
    this.#open.pop();
    this.#counts.pop();
    return this.#write(character === ")" ? "}" : character, "comma");
  }

  /**
   * @param {string} character
   * @returns {boolean}
   */
  #takeInString(character) {
    if (this.#escape) return this.#takeEscape(character);
    if (character === "\\") {
      this.#escape = character;
      return true;
    }
    if (character === this.#quote) {
      this.#quote = "";
      return this.#write(JSON.stringify(this.#string), this.#isKey ? "colon" : "comma");
    }
    this.#string += character;
    return character !== "\n" && character !== "\r";
  }

  /**
   * @param {string} character
   * @returns {boolean}
   */
  #takeEscape(character) {
    const kind = this.#escape[1] ?? "";
    const digits = this.#escape.slice(2);
    if (kind in HEX_LENGTHS) {
      this.#escape += character;
      const isWhole = digits.length + 1 === HEX_LENGTHS[kind];
      return /[0-9a-fA-F]/.test(character) && (!isWhole || this.#writeCode(digits + character, 16));
    }
    if (kind) {
      // The digits of an octal number, of which there are three at most.
      if (!/[0-7]/.test(character)) return this.#writeCode(kind + digits, 8) && this.#takeInString(character);
      this.#escape += character;
      return digits.length < 1 || this.#writeCode(kind + digits + character, 8);
    }
    if (/[xuU0-7]/.test(character)) {
      this.#escape += character;
      return true;
    }
    this.#escape = "";
    this.#string += ESCAPED.get(character) ?? `\\${character}`;
    return character !== "N" && character !== "\r";
  }

  /**
   * Write a character by its code point; halves of surrogate pairs are no characters.
   * @param {string} digits
   * @param {number} base
   */
  #writeCode(digits, base) {
    const code = Number.parseInt(digits, base);
    this.#escape = "";
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return false;
    this.#string += String.fromCodePoint(code);
    return true;
  }

  /** Count an item of the innermost list or object; return what stands before it. */
  #comma() {
    return this.#counts[this.#counts.length - 1]++ ? ", " : "";
  }

  /**
   * @param {string} text
   * @param {Expected} expected
   */
  #write(text, expected) {
    this.json += text;
    this.#expected = expected;
    return true;
  }
}

/**
 * Write a value of JSON as a Python literal.
 * @param {unknown} value
 * @param {string} [quote]  the quote around strings
 * @returns {string}
 */
export function writeLiteral(value, quote = '"') {
  if (typeof value === "string") {
    const text = JSON.stringify(value);
    if (quote === '"') return text;
    return quote + text.slice(1, -1).replaceAll('\\"', '"').replaceAll(quote, `\\${quote}`) + quote;
  }
  if (Array.isArray(value)) return `[${value.map((one) => writeLiteral(one, quote)).join(", ")}]`;
  if (isObject(value)) {
    const pairs = Object.entries(value).map(([key, one]) => `${writeLiteral(key, quote)}: ${writeLiteral(one, quote)}`);
    return `{${pairs.join(", ")}}`;
  }
  if (value === null || value === undefined) return "None";
  return typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value);
}
