/**
 * Calls of GLM-4.5 and later, whose parts stand between tags.
 *
 *     <tool_call>get_verse
 *     <arg_key>reference</arg_key>
 *     <arg_value>Micah 6:8</arg_value>
 *     </tool_call>
 *
 * The template writes a string as it is and any other value as JSON. Reading turns this around, with
 * the tool's schema where it has one.
 */

import { listTypes, writeValue } from "./argument_types.js";
import { NO_HEAD, SPACES, matchOne, skip } from "./dialect.js";
import { strip } from "../white_space.js";

const [CALL, CALL_END] = ["<tool_call>", "</tool_call>"];
const [KEY, KEY_END] = ["<arg_key>", "</arg_key>"];
const [VALUE, VALUE_END] = ["<arg_value>", "</arg_value>"];
/** Tokens of the format, which are part of the text even if the tokenizer calls them special. */
export const TAGS = [CALL, CALL_END, KEY, KEY_END, VALUE, VALUE_END];

/** The dialect. */
export class TaggedCalls {
  mark = CALL;
  markText = CALL;
  endings = [CALL_END];
  #parameters;

  /** @param {Map<string, unknown>} parameters  JSON schema of the parameters of each declared tool */
  constructor(parameters) {
    this.#parameters = parameters;
  }

  /**
   * Read the tag and the tool's name, up to the next tag.
   * @param {string} text
   * @returns {import("./dialect.js").CallHead | null}
   */
  readHead(text) {
    if (!text.startsWith(CALL)) return CALL.startsWith(text) ? null : NO_HEAD;
    const place = skip(text, CALL.length, SPACES);
    let isOpen = place === text.length;
    for (const name of this.#parameters.keys()) {
      const found = matchOne(text, place, [name]);
      isOpen ||= found === null;
      if (!found) continue;
      const end = skip(text, place + name.length, SPACES);
      const tag = matchOne(text, end, [KEY, CALL_END]);
      isOpen ||= tag === null;
      if (tag) return { name, length: end, hasFence: false };
    }
    return isOpen ? null : NO_HEAD;
  }

  /** @param {string} name */
  startBody(name) {
    return new TaggedBody(this.#parameters.get(name));
  }
}

/** The arguments up to the end of the call. */
class TaggedBody {
  arguments = "{";
  isBroken = false;
  #parameters;
  #tag = ""; // the tag whose text is being read
  #unread = "";
  #searched = 0; // characters of a value that are known to have no closing tag
  /** @type {Set<string> | null} */ #types = null; // of the value that is being read

  /** @param {unknown} parameters */
  constructor(parameters) {
    this.#parameters = parameters;
  }

  /** @param {string} text */
  read(text) {
    this.#unread += text;
    let isEnded = this.#step();
    while (isEnded === false) isEnded = this.#step();
    return isEnded ? text.length - this.#unread.length : null;
  }

  end() {
    return false;
  }

  /** Take the next part; return whether the call ended, or `null` if no part is complete. */
  #step() {
    if (this.#tag === KEY) return this.#takeKey();
    if (this.#tag === VALUE) return this.#takeValue();
    const place = skip(this.#unread, 0, SPACES);
    const found = matchOne(this.#unread, place, this.#tag === KEY_END ? [VALUE] : [KEY, CALL_END]);
    if (!found) {
      this.isBroken = found !== null;
      return null;
    }
    this.#unread = this.#unread.slice(place + found.length);
    this.#tag = found;
    if (found === CALL_END) this.arguments += "}";
    return found === CALL_END;
  }

  #takeKey() {
    const end = this.#unread.indexOf("<");
    const key = end < 0 ? this.#unread : this.#unread.slice(0, end);
    const found = end < 0 ? null : matchOne(this.#unread, end, [KEY_END]);
    this.isBroken = key.includes("\n") || found === "" || (found !== null && !strip(key));
    if (this.isBroken || found === null) return null;
    this.#types = listTypes(this.#parameters, strip(key));
    this.arguments += `${this.arguments === "{" ? "" : ", "}${JSON.stringify(strip(key))}: `;
    this.#unread = this.#unread.slice(end + KEY_END.length);
    this.#tag = KEY_END;
    return false;
  }

  #takeValue() {
    const end = this.#unread.indexOf(VALUE_END, Math.max(this.#searched - VALUE_END.length, 0));
    this.#searched = this.#unread.length;
    if (end < 0) return null;
    this.arguments += writeValue(this.#unread.slice(0, end), this.#types);
    this.#unread = this.#unread.slice(end + VALUE_END.length);
    this.#tag = "";
    this.#searched = 0;
    return false;
  }
}
