/** Shows one answer: folded reasoning, Markdown that grows token by token, tool calls, and facts. */

import { appendTurn, isNearEnd, makeText, scrollToEnd } from "./conversation_view.js";
import { make, makeButton, makeCopyButton } from "./elements.js";
import { MarkdownView } from "./markdown.js";

/** @typedef {import("./conversation.js").Call} Call */

/** One answer, empty at first. */
export class AnswerView {
  #item;
  #markdown = new MarkdownView(make("div", { className: "text" }));
  #thoughts = makeText("");
  #thinking = make("details", { className: "thinking" });
  #calls = make("div", { className: "calls" });
  #facts = make("div", { className: "facts" });
  #frame = 0;
  text = "";
  reasoning = "";
  /** @type {readonly Call[]} */ calls = [];

  constructor() {
    this.#thinking.append(make("summary", { text: "Reasoning" }), this.#thoughts);
    this.#thinking.hidden = true;
    this.#item = appendTurn("is-writing", "Answer", [this.#thinking, this.#markdown.element, this.#calls, this.#facts]);
    scrollToEnd();
  }

  /**
   * Add a part. It is drawn with the screen's next frame, since many parts may arrive between two frames.
   * @param {{ text: string, reasoning: string, toolCalls?: readonly { id: string, name: string, arguments: string }[] }} piece
   */
  add({ text, reasoning, toolCalls = [] }) {
    this.text += text;
    this.reasoning += reasoning;
    if (toolCalls.length) this.calls = toolCalls.map(({ id, name, arguments: args }) => ({ id, type: "function", function: { name, arguments: args } }));
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  /**
   * Show the facts of a finished answer, and its buttons.
   * @param {string} facts
   * @param {() => void} regenerate
   */
  finish(facts, regenerate) {
    this.#draw();
    this.#item.classList.remove("is-writing");
    const again = makeButton("Regenerate", regenerate, "Regenerate this answer");
    again.className = "action only-last";
    const copy = this.text ? [makeCopyButton("Copy this answer", () => this.text)] : [];
    this.#facts.append(...copy, again, make("span", { text: facts }));
    scrollToEnd(isNearEnd());
  }

  remove() {
    cancelAnimationFrame(this.#frame);
    this.#item.remove();
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const isAtEnd = isNearEnd();
    this.#markdown.show(this.text);
    this.#thinking.hidden = !this.reasoning;
    this.#thoughts.textContent = this.reasoning;
    this.#calls.replaceChildren(...this.calls.map(showCall));
    scrollToEnd(isAtEnd);
  }
}

/** @param {Call} call */
function showCall({ function: { name, arguments: args } }) {
  const title = make("p", { className: "call-title", parts: ["Calls ", make("strong", { text: name })] });
  const written = make("pre", { text: formatJson(args) });
  written.tabIndex = 0;
  written.setAttribute("role", "group");
  written.setAttribute("aria-label", `Arguments of ${name}`);
  return make("div", { className: "call", parts: [title, written] });
}

/** @param {string} text  complete JSON, or the beginning of it */
function formatJson(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
