/**
 * Calls of GLM-4-9B-chat with All Tools: functions, and three tools that the template describes.
 *
 *     python                  simple_browser                      cogview
 *     print(6 * 7)            search("...", recency_days=7)       A cat on the moon.
 *
 * The message of `python` is code and that of `cogview` a prompt; both may be any text. Therefore they
 * are calls only at the beginning of a turn, and go on to its end. The arguments are objects:
 * `{"code": ...}`, `{"prompt": ...}`, and for `simple_browser` the function as `action` with its
 * parameters. Calls of functions are JSON, as in `name_line.js`.
 */

import { isObject } from "../text_files.js";
import { strip } from "../white_space.js";
import { BLANKS, NO_HEAD, matchOne, skip } from "./dialect.js";
import { readJson } from "./json_scanner.js";
import { JsonBody, readNameLine, skipLineEnd } from "./name_line.js";
import { PythonCallBody } from "./python_call.js";
import { writeLiteral } from "./python_literals.js";

/** @typedef {import("./dialect.js").CallHead} CallHead */

/** Stands for the token that begins a turn; no character of a text. */
export const TURN = "\ufdd2";
const BROWSER = "simple_browser";
const ACTIONS = new Map([
  ["search", ["query", "recency_days"]],
  ["mclick", ["ids"]],
  ["open_url", ["url"]],
]);
const OPENINGS = [...ACTIONS.keys()].map((action) => `${action}(`);
const RAW_KEYS = new Map([
  ["python", "code"],
  ["cogview", "prompt"],
]);
export const BUILT_IN = [...RAW_KEYS.keys(), BROWSER];
export const RESULTS = new Map([
  [BROWSER, "browser_result"],
  ["cogview", "cogview_result"],
]);

/** The dialect. */
export class AllToolsCalls {
  mark = TURN;
  markText = "\n";
  /** @type {string[]} */ endings = [];
  #names;
  #builtIn;

  /**
   * @param {readonly string[]} names  names of the declared functions
   * @param {readonly string[]} builtIn  those of `BUILT_IN` that the conversation has
   */
  constructor(names, builtIn) {
    this.#names = names;
    this.#builtIn = builtIn;
  }

  /**
   * @param {string} text
   * @param {boolean} isFirst
   * @returns {CallHead | null}
   */
  readHead(text, isFirst) {
    const begin = text.startsWith(TURN) ? TURN.length : 0;
    const rest = text.slice(begin);
    const heads = [readNameLine(rest, this.#names, ["{"])];
    if (this.#builtIn.includes(BROWSER)) heads.push(readNameLine(rest, [BROWSER], OPENINGS));
    const raw = this.#builtIn.filter((name) => RAW_KEYS.has(name));
    if ((isFirst || begin) && raw.length) heads.push(readRawHead(rest, raw));
    const found = heads.find((head) => head?.name);
    if (found) return { ...found, length: begin + found.length };
    return heads.includes(null) ? null : NO_HEAD;
  }

  /** @param {string} name */
  startBody(name) {
    if (this.#names.includes(name)) return new JsonBody();
    return name === BROWSER ? new PythonCallBody(ACTIONS) : new RawBody(RAW_KEYS.get(name) ?? "");
  }
}

/** A text up to the end of the turn, which is the value of one key. */
class RawBody {
  isBroken = false;
  #key;
  #text = "";

  /** @param {string} key */
  constructor(key) {
    this.#key = key;
  }

  get arguments() {
    return `{"${this.#key}": ${JSON.stringify(this.#text)}}`;
  }

  /** @param {string} text */
  read(text) {
    const end = text.indexOf(TURN);
    this.#text += end < 0 ? text : text.slice(0, end);
    if (end < 0) return null;
    this.isBroken = !this.end();
    return end;
  }

  end() {
    return strip(this.#text) !== "";
  }
}

/**
 * @param {string} text
 * @param {readonly string[]} names
 * @returns {CallHead | null}
 */
function readRawHead(text, names) {
  const place = skip(text, 0, BLANKS);
  const name = matchOne(text, place, names);
  if (!name) return name === null ? null : NO_HEAD;
  const end = skipLineEnd(text, place + name.length);
  if (end === null) return null;
  return end > 0 ? { name, length: end, hasFence: false } : NO_HEAD;
}

/**
 * A call of a built-in tool in the model's own form; arguments of another form stay as they are.
 * @param {string} name
 * @param {string} text  arguments as JSON text
 */
export function writeBuiltIn(name, text) {
  const given = readJson(text);
  if (!isObject(given)) return text;
  const written = name === BROWSER ? writeBrowser(given) : given[RAW_KEYS.get(name) ?? ""];
  return typeof written === "string" ? written : text;
}

/** @param {Record<string, unknown>} given */
function writeBrowser({ action, ...given }) {
  const first = ACTIONS.get(String(action))?.[0];
  if (first === undefined) return undefined;
  const { [first]: value, ...rest } = given;
  const values = first in given ? [writeLiteral(value)] : [];
  values.push(...Object.entries(rest).map(([key, one]) => `${key}=${writeLiteral(one)}`));
  return `${action}(${values.join(", ")})`;
}
