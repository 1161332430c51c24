/**
 * Finds tool calls in an answer while it arrives.
 *
 * GLM-4-0414 and Z1 write a tool call as the tool's name on a line of its own, followed by the
 * arguments as a JSON object on the next line. Nothing marks the beginning of a call. A call is
 * therefore recognized only if it names a declared tool, is complete, is outside of code fences, and
 * has nothing but other calls after it. Read `call_head.js` for what stands before the arguments.
 */

import { FENCE, readHead } from "./call_head.js";
import { isObject } from "./text_files.js";

/**
 * A tool call of the model; `arguments` is the text of a JSON object, as the model wrote it.
 * @typedef {{ name: string, arguments: string }} ParsedCall
 */

/** Passes text through without the tool calls at its end. The text may arrive in parts of any size. */
export class ToolCallParser {
  #names;
  /** @type {"line start" | "line" | "arguments" | "after call"} */ #state;
  #isFenced = false;
  #line = ""; // the current line of text so far
  #held = ""; // text that may be tool calls, from the first one on
  #unread = "";
  #name = "";
  #callBegin = 0; // where the last call begins in the held text
  #isFenceOpen = false; // a fence before the arguments is not closed yet
  #begin = 0; // the index in `held` where the arguments begin
  #braces = new Braces();
  /** @type {ParsedCall[]} */ #calls = [];

  /** @param {readonly string[]} names  names of the declared tools; without tools, everything is text */
  constructor(names) {
    this.#names = names;
    this.#state = names.length ? "line start" : "line";
  }

  /**
   * Take new text; return the part of it that cannot be a tool call.
   * @param {string} text
   */
  add(text) {
    if (!this.#names.length) return text;
    this.#unread += text;
    let shown = "";
    for (let step = this.#step(); step !== null; step = this.#step()) shown += step;
    return shown;
  }

  /**
   * At the end of the answer, return the text that was held back, and the tool calls.
   * @returns {[text: string, calls: ParsedCall[]]}
   */
  finish() {
    const end = (this.#held + this.#unread).trimEnd();
    if (!end.endsWith("}") && !end.endsWith(FENCE)) {
      const rest = this.#held + this.#unread;
      this.#held = this.#unread = "";
      return [rest, []];
    }
    let shown = "";
    while (this.#held) {
      if (this.#state === "after call" && !this.#unread.trim()) return [shown, this.#calls];
      shown += this.#giveUp() + this.add("");
    }
    return [shown + this.#unread, []];
  }

  /** Process text up to the next change of state; `null` if more text is needed. */
  #step() {
    if (this.#state === "line start") return this.#startLine();
    if (this.#state === "line") return this.#takeLine();
    return this.#state === "arguments" ? this.#takeArguments() : this.#followCall();
  }

  #startLine() {
    if (!this.#unread) return null;
    if (!this.#isFenced) {
      const head = readHead(this.#unread, this.#names);
      if (head === null) return null;
      if (head.name) return this.#beginCall(head);
    }
    this.#state = "line";
    this.#line = "";
    return "";
  }

  #takeLine() {
    if (!this.#unread) return null;
    const [line, newline, rest] = splitLine(this.#unread);
    this.#unread = rest;
    this.#line += line;
    if (newline) {
      if (this.#line.trimStart().startsWith(FENCE)) this.#isFenced = !this.#isFenced;
      this.#state = "line start";
    }
    return line + newline;
  }

  #takeArguments() {
    const end = this.#braces.findEnd(this.#unread);
    if (this.#braces.isBroken) return this.#giveUp();
    if (end === null) {
      this.#held += this.#unread;
      this.#unread = "";
      return null;
    }
    this.#held += this.#unread.slice(0, end);
    this.#unread = this.#unread.slice(end);
    const text = this.#held.slice(this.#begin);
    if (!isObjectText(text)) return this.#giveUp();
    this.#calls.push({ name: this.#name, arguments: text });
    this.#state = "after call";
    return "";
  }

  /** After a call: another call must follow on a new line; otherwise the held text was no call. */
  #followCall() {
    const rest = this.#unread.trimStart();
    if (!rest) return null;
    if (this.#isFenceOpen) return this.#closeFence(rest);
    const blanks = this.#unread.slice(0, this.#unread.length - rest.length);
    const head = readHead(rest, this.#names);
    if (!blanks.includes("\n") || (head !== null && !head.name)) return this.#giveUp();
    if (head === null) return null;
    this.#held += blanks;
    this.#unread = rest;
    return this.#beginCall(head);
  }

  /** @param {string} rest  the unread text without white space before it */
  #closeFence(rest) {
    if (!rest.startsWith(FENCE)) return FENCE.startsWith(rest) ? null : this.#giveUp();
    const end = this.#unread.length - rest.length + FENCE.length;
    this.#held += this.#unread.slice(0, end);
    this.#unread = this.#unread.slice(end);
    this.#isFenceOpen = false;
    return "";
  }

  /** @param {import("./call_head.js").CallHead} head */
  #beginCall({ name, length, hasFence }) {
    this.#name = name;
    this.#isFenceOpen = hasFence;
    this.#callBegin = this.#held.length;
    this.#braces = new Braces();
    this.#state = "arguments";
    this.#held += this.#unread.slice(0, length);
    this.#unread = this.#unread.slice(length);
    this.#begin = this.#held.length;
    return "";
  }

  /**
   * Return held text that is no call, and parse the rest again.
   *
   * If text follows a call, none of the held calls is one, because only calls may follow a call. If the
   * last call is broken, its second line may still begin a call.
   */
  #giveUp() {
    const isBroken = this.#state === "arguments";
    const end = isBroken ? this.#held.indexOf("\n", this.#callBegin) + 1 : this.#held.length;
    const released = this.#held.slice(0, end);
    this.#unread = this.#held.slice(end) + this.#unread;
    this.#held = "";
    this.#calls = [];
    this.#isFenceOpen = false;
    const lines = released.split("\n");
    this.#line = lines.pop() ?? "";
    for (const line of lines) if (line.trimStart().startsWith(FENCE)) this.#isFenced = !this.#isFenced;
    this.#state = this.#line ? "line" : "line start";
    return released;
  }
}

/** Counts braces outside of strings to find the end of a JSON object. */
class Braces {
  isBroken = false; // whether the text cannot be JSON, whatever follows
  #depth = 0;
  #isString = false;
  #isEscaped = false;

  /**
   * Continue with new text; return the index after the brace that closes the object, or `null`.
   * @param {string} text
   * @returns {number | null}
   */
  findEnd(text) {
    for (let index = 0; index < text.length && !this.isBroken; index++) {
      const character = text[index];
      if (this.#isString) this.#readString(character);
      else if (character === '"') this.#isString = true;
      else if (character === "{") this.#depth++;
      else if (character === "}") this.#depth--;
      else if (!/[[\]:,+\-.0-9eEtrufalsn \t\r\n]/.test(character)) this.isBroken = true;
      if (character === "}" && !this.#isString && !this.#depth) return index + 1;
    }
    return null;
  }

  /** @param {string} character */
  #readString(character) {
    if (this.#isEscaped) this.#isEscaped = false;
    else if (character === "\\") this.#isEscaped = true;
    else if (character === '"') this.#isString = false;
    else if (character < " ") this.isBroken = true;
  }
}

/**
 * @param {string} text
 * @returns {[line: string, newline: string, rest: string]}
 */
function splitLine(text) {
  const end = text.indexOf("\n");
  return end < 0 ? [text, "", ""] : [text.slice(0, end), "\n", text.slice(end + 1)];
}

/** @param {string} text */
function isObjectText(text) {
  try {
    return isObject(JSON.parse(text));
  } catch {
    return false;
  }
}
