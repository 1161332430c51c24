/**
 * Calls of ChatGLM3: the tool's name on a line, and a Python call with literal arguments.
 *
 *     get_verse
 *     ```python
 *     tool_call(reference='Micah 6:8')
 *     ```
 *
 * The fence may be missing. Nothing of this is ever run; `python_literals.js` reads it.
 */

import { isObject } from "../text_files.js";
import { FENCE } from "./dialect.js";
import { readJson } from "./json_scanner.js";
import { readNameLine } from "./name_line.js";
import { ArgumentScanner, writeLiteral } from "./python_literals.js";

const FUNCTION = "tool_call(";

/** The dialect, for tools with these names. */
export class PythonCalls {
  mark = "";
  markText = "";
  endings = [")", FENCE];
  #names;

  /** @param {readonly string[]} names */
  constructor(names) {
    this.#names = names;
  }

  /** @param {string} text */
  readHead(text) {
    return readNameLine(text, this.#names, [FUNCTION]);
  }

  startBody() {
    return new PythonCallBody();
  }
}

/** A call of a function; the arguments are an object. */
export class PythonCallBody {
  isBroken = false;
  #positional;
  #function = "";
  /** @type {ArgumentScanner | null} */ #scanner = null;

  /**
   * @param {ReadonlyMap<string, readonly string[]>} [positional]  for each function, the names of its
   *   positional parameters; the function is then the first argument, `action`
   */
  constructor(positional) {
    this.#positional = positional;
  }

  get arguments() {
    const action = this.#positional ? `"action": ${JSON.stringify(this.#function)}` : "";
    return `{${action}${this.#scanner?.json ?? ""}`;
  }

  /** @param {string} text */
  read(text) {
    let begin = 0;
    if (!this.#scanner) {
      begin = text.indexOf("(") + 1;
      this.#function += begin ? text.slice(0, begin - 1) : text;
      if (!begin) return null;
      const names = this.#positional?.get(this.#function);
      this.#scanner = names ? new ArgumentScanner(names, ["action"]) : new ArgumentScanner([]);
    }
    const end = this.#scanner.read(text.slice(begin));
    this.isBroken = this.#scanner.isBroken;
    return end === null ? null : begin + end;
  }

  end() {
    return false;
  }
}

/**
 * The call with arguments that are a JSON object; other text is returned as it is.
 * @param {string} text
 */
export function writePythonCall(text) {
  const given = readJson(text);
  if (!isObject(given)) return text;
  const pairs = Object.entries(given).map(([key, value]) => `${key}=${writeLiteral(value, "'")}`);
  return `${FENCE}python\n${FUNCTION}${pairs.join(", ")})\n${FENCE}`;
}
