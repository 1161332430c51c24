/**
 * Splits an answer into reasoning and text while it arrives.
 *
 * GLM-Z1 writes `<think>`, its reasoning, `</think>`, and then the answer. Most of its templates end
 * with `<think>`, so that the generated text begins inside the reasoning.
 */

import { strip, stripBack, stripFront } from "./white_space.js";

export const OPENING = "<think>";
export const CLOSING = "</think>";

/** Returns reasoning and text separately, without the tags and the blank lines around them. */
export class ThinkingSplitter {
  isThinking;
  #isStarted; // whether the opening tag was found, or cannot follow any more
  #isBlank = true; // whether only white space followed the last tag
  #isMarked = false; // whether a tag precedes the answer
  #held = "";

  /** @param {boolean} isOpen  whether the prompt ends inside the reasoning */
  constructor(isOpen) {
    this.isThinking = isOpen;
    this.#isStarted = isOpen;
  }

  /**
   * Take new text; return the parts that are certain.
   * @param {string} text
   * @returns {[reasoning: string, answer: string]}
   */
  add(text) {
    this.#held += text;
    if (!this.#isStarted && !this.#findOpening()) return ["", ""];
    const reasoning = this.isThinking ? this.#takeThinking() : "";
    return this.isThinking ? [reasoning, ""] : [reasoning, this.#takeAnswer()];
  }

  /**
   * Return the text that was held back, at the end of the answer.
   * @returns {[reasoning: string, answer: string]}
   */
  flush() {
    const held = this.#held;
    this.#held = "";
    if (this.isThinking) return [strip(held) ? held : "", ""];
    return ["", this.#isBlank && !strip(held) ? "" : held];
  }

  /** Look for the opening tag. Returns false while the tag may still be incomplete. */
  #findOpening() {
    const text = stripFront(this.#held);
    if (text !== OPENING && OPENING.startsWith(text)) return false;
    this.#isStarted = true;
    if (text.startsWith(OPENING)) {
      this.isThinking = true;
      this.#held = text.slice(OPENING.length);
    }
    return true;
  }

  /** Take reasoning up to the closing tag, or up to a possible beginning of that tag. */
  #takeThinking() {
    if (this.#isBlank) this.#held = stripFront(this.#held);
    const end = this.#held.indexOf(CLOSING);
    if (end >= 0) {
      const thoughts = this.#held.slice(0, end);
      this.#held = this.#held.slice(end + CLOSING.length);
      this.isThinking = false;
      this.#isBlank = true;
      this.#isMarked = true;
      return stripBack(thoughts);
    }
    const shown = stripBack(this.#held.slice(0, this.#held.length - countHeld(this.#held)));
    this.#held = this.#held.slice(shown.length);
    this.#isBlank = this.#isBlank && !shown;
    return shown;
  }

  /** Take the text of the answer without leading blank lines; its first line keeps its indentation. */
  #takeAnswer() {
    if (this.#isBlank) {
      if (!strip(this.#held)) return "";
      this.#held = this.#dropBlankLines(this.#held);
    }
    this.#isBlank = false;
    const answer = this.#held;
    this.#held = "";
    return answer;
  }

  /** @param {string} text */
  #dropBlankLines(text) {
    const blanks = text.slice(0, text.length - stripFront(text).length);
    if (this.#isMarked && !blanks.includes("\n")) return stripFront(text); // text on the line of the tag has no indentation
    return text.slice(blanks.lastIndexOf("\n") + 1);
  }
}

/**
 * Whether a rendered prompt ends inside the reasoning.
 * @param {string} prompt
 */
export function isOpenThinking(prompt) {
  return stripBack(prompt).endsWith(OPENING);
}

/**
 * Length of the longest suffix of the text that is a prefix of the closing tag.
 * @param {string} text
 */
function countHeld(text) {
  for (let length = Math.min(CLOSING.length - 1, text.length); length > 0; length--) {
    if (text.endsWith(CLOSING.slice(0, length))) return length;
  }
  return 0;
}
