/** Shows a conversation: questions, and answers that grow token by token. */

import { find, make, makeButton } from "./elements.js";

const COPIED_MS = 2000;
const NEAR_END_PIXELS = 120;

/** Shows one answer. */
export class AnswerView {
  #item;
  #text = make("p", { className: "text" });
  #thoughts = make("p", { className: "text" });
  #thinking = make("details", { className: "thinking" });
  #facts = make("div", { className: "facts" });

  constructor() {
    this.#text.dir = this.#thoughts.dir = "auto";
    this.#thinking.append(make("summary", { text: "Reasoning" }), this.#thoughts);
    this.#thinking.hidden = true;
    const title = make("h2", { className: "unseen", text: "Answer" });
    this.#item = make("li", {
      className: "turn is-writing",
      parts: [title, this.#thinking, this.#text, this.#facts],
    });
    find("turns").append(this.#item);
    scrollToEnd(true);
  }

  get text() {
    return this.#text.textContent ?? "";
  }

  /** @param {{ text: string, reasoning: string }} piece */
  add({ text, reasoning }) {
    const isAtEnd = isNearEnd();
    if (reasoning) this.#thinking.hidden = false;
    this.#thoughts.append(reasoning);
    this.#text.append(text);
    scrollToEnd(isAtEnd);
  }

  /**
   * Show the facts of a finished answer, and a Copy button.
   * @param {string} facts  token count, speed, and how the answer ended
   */
  finish(facts) {
    this.#item.classList.remove("is-writing");
    this.#text.normalize();
    this.#thoughts.normalize();
    const copy = makeButton("Copy", () => this.#copy(copy));
    copy.setAttribute("aria-label", "Copy this answer");
    this.#facts.append(...(this.text ? [copy] : []), make("span", { text: facts }));
    scrollToEnd(isNearEnd());
  }

  remove() {
    this.#item.remove();
  }

  /** @param {HTMLButtonElement} button */
  async #copy(button) {
    try {
      await navigator.clipboard.writeText(this.text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copying is not allowed"; // by the browser, or without https
    }
    find("announcer").textContent = button.textContent;
    setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
  }
}

/**
 * Show a question.
 * @param {string} text
 * @returns {HTMLElement}
 */
export function showQuestion(text) {
  find("hint").hidden = true;
  const title = make("h2", { className: "unseen", text: "You" });
  const words = make("p", { className: "text", text });
  words.dir = "auto";
  const item = make("li", { className: "turn asked", parts: [title, words] });
  find("turns").append(item);
  return item;
}

export function clearTurns() {
  find("turns").replaceChildren();
  find("hint").hidden = false;
}

function isNearEnd() {
  const { scrollHeight, clientHeight, scrollTop } = document.documentElement;
  return scrollHeight - clientHeight - scrollTop < NEAR_END_PIXELS;
}

/** @param {boolean} isWanted */
function scrollToEnd(isWanted) {
  if (isWanted) document.documentElement.scrollTop = document.documentElement.scrollHeight;
}
