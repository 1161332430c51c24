/**
 * Calls of GLM-Z1-Rumination: a JSON object with the tool's name and its arguments.
 *
 *     {"name": "search", "arguments": {"query": "..."}}
 */

import { BLANKS, NO_HEAD, SPACES, matchOne, skip } from "./dialect.js";
import { JsonBody } from "./name_line.js";

/** The dialect, for tools with these names. */
export class BareJsonCalls {
  mark = "";
  markText = "";
  endings = ["}"];
  #names;

  /** @param {readonly string[]} names */
  constructor(names) {
    this.#names = names;
  }

  /**
   * Read up to the opening brace of the arguments.
   * @param {string} text
   * @returns {import("./dialect.js").CallHead | null}
   */
  readHead(text) {
    const names = this.#names.map((name) => JSON.stringify(name));
    let place = skip(text, 0, BLANKS);
    let name = "";
    for (const wanted of [["{"], ['"name"'], [":"], names, [","], ['"arguments"'], [":"], ["{"]]) {
      const found = matchOne(text, place, wanted);
      if (!found) return found === null ? null : NO_HEAD;
      if (wanted === names) name = this.#names[names.indexOf(found)];
      place = skip(text, place + found.length, SPACES);
    }
    return { name, length: text.lastIndexOf("{", place - 1), hasFence: false };
  }

  startBody() {
    return new BareBody();
  }
}

/** The object of the arguments, and the brace that ends the call. */
class BareBody {
  isBroken = false;
  #object = new JsonBody();
  #isRead = false; // the object of the arguments

  get arguments() {
    return this.#object.arguments;
  }

  /** @param {string} text */
  read(text) {
    let begin = 0;
    if (!this.#isRead) {
      const end = this.#object.read(text);
      this.isBroken = this.#object.isBroken;
      if (end === null || this.isBroken) return end;
      this.#isRead = true;
      begin = end;
    }
    const place = skip(text, begin, SPACES);
    if (place === text.length) return null;
    this.isBroken = text[place] !== "}";
    return place + 1;
  }

  end() {
    return false;
  }
}
