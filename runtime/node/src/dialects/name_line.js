/**
 * Calls of GLM-4-0414 and GLM-Z1: the tool's name alone on a line, and a JSON object.
 *
 * As in the models' own server, blanks around the name, blank lines before the object and a code fence
 * around the object are allowed. A template of another kind is read in this dialect, too.
 */

import { BLANKS, FENCE, NO_HEAD, SPACES, matchOne, skip } from "./dialect.js";
import { JsonScanner, isObjectText } from "./json_scanner.js";

/** @typedef {import("./dialect.js").CallHead} CallHead */

/** The dialect, for tools with these names. */
export class NameLineCalls {
  mark = "";
  markText = "";
  endings = ["}", FENCE];
  #names;

  /** @param {readonly string[]} names */
  constructor(names) {
    this.#names = names;
  }

  /** @param {string} text */
  readHead(text) {
    return readNameLine(text, this.#names, ["{"]);
  }

  startBody() {
    return new JsonBody();
  }
}

/** A JSON object; the arguments are its text, as the model wrote it. */
export class JsonBody {
  arguments = "";
  isBroken = false;
  #scanner = new JsonScanner();

  /** @param {string} text */
  read(text) {
    const end = this.#scanner.findEnd(text);
    this.arguments += end === null ? text : text.slice(0, end);
    this.isBroken = this.#scanner.isBroken || (end !== null && !isObjectText(this.arguments));
    return end;
  }

  end() {
    return false;
  }
}

/**
 * Read the head at the start of a line; `null` if more text is needed to decide.
 * @param {string} text
 * @param {readonly string[]} names  names of the declared tools
 * @param {readonly string[]} openings  texts with which the body may begin
 * @returns {CallHead | null}
 */
export function readNameLine(text, names, openings) {
  const start = skip(text, 0, BLANKS);
  let isOpen = start === text.length;
  for (const name of names) {
    const rest = text.slice(start, start + name.length);
    if (rest.length < name.length && name.startsWith(rest)) isOpen = true;
    if (rest !== name) continue;
    const gap = readGap(text, start + name.length, openings);
    if (gap?.length) return { ...gap, name };
    isOpen ||= gap === null;
  }
  return isOpen ? null : NO_HEAD;
}

/**
 * The place after the rest of a blank line; -1 if it is not blank, `null` if it has no end yet.
 * @param {string} text
 * @param {number} place
 * @returns {number | null}
 */
export function skipLineEnd(text, place) {
  let end = skip(text, place, BLANKS);
  if (text[end] === "\r") end++;
  if (end === text.length) return null;
  return text[end] === "\n" ? end + 1 : -1;
}

/**
 * Read from the end of the name to the body: a line end, blank lines, and one fence.
 * @param {string} text
 * @param {number} place
 * @param {readonly string[]} openings
 * @returns {CallHead | null}
 */
function readGap(text, place, openings) {
  const lineStart = skipLineEnd(text, place);
  if (lineStart === null) return null;
  if (lineStart < 0) return NO_HEAD;
  let end = skip(text, lineStart, SPACES);
  const hasFence = text.startsWith(FENCE, end);
  if (hasFence) {
    const lineEnd = text.indexOf("\n", end);
    const info = text.slice(end + FENCE.length, lineEnd < 0 ? text.length : lineEnd);
    if (!/^\p{L}*[ \t\r]*$/u.test(info)) return NO_HEAD;
    if (lineEnd < 0) return null;
    end = skip(text, lineEnd, SPACES);
  }
  const found = matchOne(text, end, hasFence ? openings : [...openings, FENCE]);
  if (found === null) return null;
  return found ? { name: "", length: end, hasFence } : NO_HEAD;
}
