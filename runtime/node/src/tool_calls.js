/**
 * Finds tool calls in an answer while it arrives.
 *
 * Models write calls in the dialects of `dialects/`. Most have no special token for a call. A call is
 * therefore recognized only if it names a declared tool, is complete, is outside of code fences, and has
 * nothing but other calls after it.
 */

import { FENCE } from "./dialects/dialect.js";
import { strip, stripBack, stripFront } from "./white_space.js";

/** @typedef {import("./dialects/dialect.js").CallDialect} CallDialect */
/** @typedef {import("./dialects/dialect.js").CallBody} CallBody */

/**
 * A tool call of the model; `arguments` is the text of a JSON object, as the model wrote it where the
 * model writes JSON.
 * @typedef {{ name: string, arguments: string }} ParsedCall
 */

/** Passes text through without the tool calls at its end. The text may arrive in parts of any size. */
export class ToolCallParser {
  #dialect;
  /** @type {"line start" | "line" | "body" | "after call"} */ #state = "line start";
  #isFirst = true; // nothing was passed through
  #isFenced = false;
  #line = ""; // the beginning of the current line
  #held = ""; // text that may be tool calls, from the first one on
  #unread = "";
  #name = "";
  #callBegin = 0; // where the last call begins in the held text
  #isFenceOpen = false; // a fence before the body is not closed yet
  /** @type {CallBody} */ #body;
  /** @type {ParsedCall[]} */ #calls = [];

  /** @param {CallDialect | null} dialect  how calls are written; `null` if everything is text */
  constructor(dialect) {
    this.#dialect = dialect;
    this.#body = NO_BODY;
  }

  /**
   * Take new text; return the part of it that cannot be a tool call.
   * @param {string} text
   */
  add(text) {
    if (!this.#dialect) return text;
    this.#unread += text;
    return show(this.#advance(this.#dialect), this.#dialect);
  }

  /**
   * At the end of the answer, return the text that was held back, and the tool calls.
   * @returns {[text: string, calls: ParsedCall[]]}
   */
  finish() {
    const dialect = this.#dialect;
    if (!dialect) return ["", []];
    let shown = this.#mayEndCall(dialect) ? "" : this.#dropCalls();
    while (this.#state === "body" || this.#state === "after call") {
      if (this.#state === "body" && this.#body.end()) {
        this.#endCall();
      } else if (this.#state === "after call" && this.#isBlank(dialect)) {
        this.#unread = "";
        this.#state = "line";
      } else {
        shown += this.#giveUp(dialect) + this.#advance(dialect);
      }
    }
    return [show(shown + this.#unread, dialect), this.#calls];
  }

  /** @param {CallDialect} dialect */
  #isBlank(dialect) {
    return !strip(show(this.#unread, dialect));
  }

  /**
   * Whether the held text can be a call by its end.
   * @param {CallDialect} dialect
   */
  #mayEndCall(dialect) {
    if (!this.#held || !dialect.endings.length) return true;
    const text = stripBack(this.#held + this.#unread);
    return dialect.endings.some((ending) => text.endsWith(ending));
  }

  #dropCalls() {
    const text = this.#held + this.#unread;
    this.#held = this.#unread = "";
    this.#state = "line";
    this.#calls = [];
    return text;
  }

  /** @param {CallDialect} dialect */
  #advance(dialect) {
    let shown = "";
    while (this.#unread) {
      const step = this.#step(dialect);
      if (step === null) break;
      shown += step;
    }
    return shown;
  }

  /**
   * Process text up to the next change of state; `null` if more text is needed.
   * @param {CallDialect} dialect
   */
  #step(dialect) {
    if (this.#state === "line start") return this.#startLine(dialect);
    if (this.#state === "line") return this.#takeLine(dialect);
    return this.#state === "body" ? this.#takeBody(dialect) : this.#followCall(dialect);
  }

  /** @param {CallDialect} dialect */
  #startLine(dialect) {
    const isMark = dialect.mark !== "" && this.#unread.startsWith(dialect.mark);
    if (isMark && dialect.markText === "\n") this.#isFenced = false;
    if (!this.#isFenced) {
      const head = dialect.readHead(this.#unread, this.#isFirst);
      if (head === null) return null;
      if (head.name) return this.#beginCall(dialect, head);
    }
    this.#state = "line";
    return this.#pass(dialect, isMark ? dialect.mark : "");
  }

  /** @param {CallDialect} dialect */
  #takeLine(dialect) {
    const end = this.#unread.indexOf("\n");
    const line = end < 0 ? this.#unread : this.#unread.slice(0, end);
    const place = this.#findMark(dialect, line);
    if (place < 0) {
      this.#state = end < 0 ? "line" : "line start";
      return this.#pass(dialect, this.#unread.slice(0, line.length + 1));
    }
    if (this.#unread.startsWith(dialect.mark, place)) this.#state = "line start";
    else if (!place) return null;
    return this.#pass(dialect, line.slice(0, place));
  }

  /**
   * Where a mark, or what may be the beginning of one, stands in the unread line; -1 for nowhere.
   * @param {CallDialect} dialect
   * @param {string} line
   */
  #findMark(dialect, line) {
    if (!dialect.mark) return -1;
    let place = line.indexOf(dialect.mark);
    if (place < 0 && line.length === this.#unread.length) place = line.length - countHeld(line, dialect.mark);
    if (place < 0 || place >= line.length) return -1;
    const isFence = this.#isFenced || opensFence(this.#line + line.slice(0, place));
    return isFence && dialect.markText !== "\n" ? -1 : place;
  }

  /** @param {CallDialect} dialect */
  #takeBody(dialect) {
    const end = this.#body.read(this.#unread);
    const isBroken = this.#body.isBroken;
    const length = end === null || isBroken ? this.#unread.length : end;
    this.#held += this.#unread.slice(0, length);
    this.#unread = this.#unread.slice(length);
    if (isBroken) return this.#giveUp(dialect);
    if (end !== null) this.#endCall();
    return "";
  }

  /**
   * After a call: another call must follow on a new line; otherwise the held text was no call.
   * @param {CallDialect} dialect
   */
  #followCall(dialect) {
    if (this.#isBlank(dialect)) return null;
    const rest = stripFront(this.#unread);
    if (this.#isFenceOpen) return this.#closeFence(dialect, rest);
    const blanks = this.#unread.slice(0, this.#unread.length - rest.length);
    const { mark } = dialect;
    const isMarked = mark !== "" && (rest.startsWith(mark) || mark.startsWith(rest));
    const head = dialect.readHead(rest, false);
    if (!(isMarked || blanks.includes("\n")) || (head !== null && !head.name)) return this.#giveUp(dialect);
    if (head === null) return null;
    this.#held += blanks;
    this.#unread = rest;
    return this.#beginCall(dialect, head);
  }

  /**
   * @param {CallDialect} dialect
   * @param {string} rest  the unread text without white space before it
   */
  #closeFence(dialect, rest) {
    if (!rest.startsWith(FENCE)) return FENCE.startsWith(rest) ? null : this.#giveUp(dialect);
    const end = this.#unread.length - rest.length + FENCE.length;
    this.#held += this.#unread.slice(0, end);
    this.#unread = this.#unread.slice(end);
    this.#isFenceOpen = false;
    return "";
  }

  /**
   * @param {CallDialect} dialect
   * @param {import("./dialects/dialect.js").CallHead} head
   */
  #beginCall(dialect, { name, length, hasFence }) {
    this.#name = name;
    this.#isFenceOpen = hasFence;
    this.#callBegin = this.#held.length;
    this.#body = dialect.startBody(name);
    this.#state = "body";
    this.#held += this.#unread.slice(0, length);
    this.#unread = this.#unread.slice(length);
    return "";
  }

  #endCall() {
    this.#calls.push({ name: this.#name, arguments: this.#body.arguments });
    this.#state = "after call";
  }

  /**
   * Return held text that is no call, and parse the rest again.
   *
   * If text follows a call, none of the held calls is one, because only calls may follow a call. If the
   * last call is broken, another call may begin after its mark or its first line.
   * @param {CallDialect} dialect
   */
  #giveUp(dialect) {
    let end = this.#held.length;
    if (this.#state === "body") {
      end = this.#held.indexOf("\n", this.#callBegin) + 1 || end;
      const { mark } = dialect;
      if (mark && this.#held.startsWith(mark, this.#callBegin)) end = this.#callBegin + mark.length;
    }
    const released = this.#held.slice(0, end);
    this.#unread = this.#held + this.#unread;
    this.#held = "";
    this.#calls = [];
    this.#isFenceOpen = false;
    this.#pass(dialect, released);
    this.#state = this.#line ? "line" : "line start";
    return released;
  }

  /**
   * Take text that is no call, and follow its lines and fences.
   * @param {CallDialect} dialect
   * @param {string} text
   */
  #pass(dialect, text) {
    this.#unread = this.#unread.slice(text.length);
    this.#isFirst &&= !text;
    let last = text;
    if (dialect.markText === "\n" && text.includes(dialect.mark)) {
      this.#isFenced = false;
      this.#line = "";
      last = text.slice(text.lastIndexOf(dialect.mark) + dialect.mark.length);
    }
    const lines = (this.#line + last).split("\n");
    const line = lines.pop() ?? "";
    for (const one of lines) if (opensFence(one)) this.#isFenced = !this.#isFenced;
    this.#line = stripFront(line).slice(0, FENCE.length) || line.slice(0, 1);
    return text;
  }
}

/** @type {CallBody} */
const NO_BODY = Object.freeze({ arguments: "", isBroken: true, read: () => null, end: () => false });

/**
 * @param {string} text
 * @param {CallDialect} dialect
 */
function show(text, { mark, markText }) {
  return mark ? text.replaceAll(mark, markText) : text;
}

/** @param {string} line */
function opensFence(line) {
  return stripFront(line).startsWith(FENCE);
}

/**
 * The length of the longest end of a text with which the mark may begin.
 * @param {string} text
 * @param {string} mark
 */
function countHeld(text, mark) {
  let length = Math.min(mark.length - 1, text.length);
  while (length > 0 && !text.endsWith(mark.slice(0, length))) length--;
  return length;
}
