/**
 * Takes an answer apart into what the model thought and what it says, while text arrives.
 *
 * GLM-Z1 writes `<think>`, its thoughts, `</think>`, and then the answer; most of its templates end
 * with `<think>` already, so that the text begins inside.
 */

const OPENING = "<think>";
export const CLOSING = "</think>";

/** Passes text through in two streams, without the marks and the blank lines around them. */
export class ThinkingSplitter {
  isThinking;
  #isStarted; // past the place where the opening mark may stand
  #isBlank = true; // nothing but white space since the last mark
  #isMarked = false; // a mark stands before the answer
  #held = "";

  /** @param {boolean} isOpen  the prompt ends inside the thinking */
  constructor(isOpen) {
    this.isThinking = isOpen;
    this.#isStarted = isOpen;
  }

  /**
   * Take new text; return what can be told now.
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
   * Return what was held back, when no more text comes.
   * @returns {[reasoning: string, answer: string]}
   */
  flush() {
    const held = this.#held;
    this.#held = "";
    if (this.isThinking) return [held.trim() ? held : "", ""];
    return ["", this.#isBlank && !held.trim() ? "" : held];
  }

  /** Settle whether the text begins with a mark; false as long as it may. */
  #findOpening() {
    const text = this.#held.trimStart();
    if (text !== OPENING && OPENING.startsWith(text)) return false;
    this.#isStarted = true;
    if (text.startsWith(OPENING)) {
      this.isThinking = true;
      this.#held = text.slice(OPENING.length);
    }
    return true;
  }

  /** Thinking up to its end, or up to what may be the beginning of its end. */
  #takeThinking() {
    if (this.#isBlank) this.#held = this.#held.trimStart();
    const end = this.#held.indexOf(CLOSING);
    if (end >= 0) {
      const thoughts = this.#held.slice(0, end);
      this.#held = this.#held.slice(end + CLOSING.length);
      this.isThinking = false;
      this.#isBlank = true;
      this.#isMarked = true;
      return thoughts.trimEnd();
    }
    const shown = this.#held.slice(0, this.#held.length - countHeld(this.#held)).trimEnd();
    this.#held = this.#held.slice(shown.length);
    this.#isBlank = this.#isBlank && !shown;
    return shown;
  }

  /** Text without the blank lines it may begin with; its first line keeps its indentation. */
  #takeAnswer() {
    if (this.#isBlank) {
      if (!this.#held.trim()) return "";
      this.#held = this.#dropBlankLines(this.#held);
    }
    this.#isBlank = false;
    const answer = this.#held;
    this.#held = "";
    return answer;
  }

  /** @param {string} text */
  #dropBlankLines(text) {
    const blanks = text.slice(0, text.length - text.trimStart().length);
    if (this.#isMarked && !blanks.includes("\n")) return text.trimStart(); // no indentation after a mark
    return text.slice(blanks.lastIndexOf("\n") + 1);
  }
}

/**
 * Whether a rendered prompt ends inside the thinking.
 * @param {string} prompt
 */
export function isOpenThinking(prompt) {
  return prompt.trimEnd().endsWith(OPENING);
}

/**
 * Length of the longest end of the text that begins the closing mark.
 * @param {string} text
 */
function countHeld(text) {
  for (let length = Math.min(CLOSING.length - 1, text.length); length > 0; length--) {
    if (text.endsWith(CLOSING.slice(0, length))) return length;
  }
  return 0;
}
