/** One conversation with one model: the message field, questions, answers, and the Stop button. */

import { GenerationError, PromptError } from "../src/index.js";
import { AnswerView, clearTurns, showQuestion } from "./conversation_view.js";
import { find } from "./elements.js";
import { readOptions, readSystem } from "./settings_view.js";

const IS_COMPOSING = 229; // keyCode while an input method is open; Safari has no other sign of it

/** Keeps the messages. The worker's session keeps the KV cache. */
export class Chat {
  #model;
  #reopen;
  #session;
  /** @type {import("glm-runtime/core").Message[]} */ #messages = [];
  /** @type {AbortController | null} */ #answering = null;
  #listeners = new AbortController();

  /**
   * @param {import("../src/index.js").RemoteModel} model
   * @param {() => Promise<unknown>} reopen  loads the model again after an error
   */
  constructor(model, reopen) {
    this.#model = model;
    this.#reopen = reopen;
    this.#session = model.newSession();
    this.#listen();
    this.#clear();
    find("chat").hidden = false;
    this.#setBusy(false);
    find("message").focus();
  }

  /** Start a new conversation. */
  restart() {
    this.#answering?.abort();
    const old = this.#session;
    this.#session = this.#model.newSession();
    this.#clear();
    find("message").focus();
    return old.release();
  }

  close() {
    this.#answering?.abort();
    this.#listeners.abort();
    this.#setBusy(false);
    find("chat").hidden = true;
    for (const id of ["message", "send", "new-chat", "show-settings"]) disable(id, true);
  }

  #clear() {
    this.#messages = [];
    clearTurns();
    find("problem").textContent = "";
  }

  #listen() {
    const { signal } = this.#listeners;
    find("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    }, { signal });
    find("message").addEventListener("keydown", (event) => {
      const isEnter = event.key === "Enter" && !event.shiftKey;
      if (!isEnter || event.isComposing || event.keyCode === IS_COMPOSING) return;
      event.preventDefault();
      this.#send();
    }, { signal });
    find("stop").addEventListener("click", () => this.#answering?.abort(), { signal });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]")) this.#answering?.abort();
    }, { signal });
  }

  #send() {
    const message = /** @type {HTMLTextAreaElement} */ (find("message"));
    const text = message.value;
    if (this.#answering || !text.trim()) return;
    message.value = "";
    this.#ask(text);
  }

  /** @param {string} text */
  async #ask(text) {
    const session = this.#session;
    const controller = (this.#answering = new AbortController());
    const question = showQuestion(text);
    const asked = { role: "user", content: text };
    const view = new AnswerView();
    find("problem").textContent = "";
    this.#setBusy(true);
    try {
      const facts = await this.#answer(asked, view, controller.signal);
      view.finish(facts);
      if (session === this.#session) this.#messages.push(asked, { role: "assistant", content: view.text });
      find("announcer").textContent = `Answer: ${view.text}`;
    } catch (error) {
      await this.#fail(error, { question, view, text, isCurrent: session === this.#session });
    } finally {
      if (this.#answering === controller) this.#answering = null;
      if (!this.#listeners.signal.aborted) this.#setBusy(this.#answering !== null);
    }
  }

  /**
   * Show an answer while it arrives. A stopped answer counts as an answer.
   * @param {import("glm-runtime/core").Message} asked
   * @param {AnswerView} view
   * @param {AbortSignal} signal
   * @returns {Promise<string>}  token count, speed, and how the answer ended
   */
  async #answer(asked, view, signal) {
    const messages = [...readSystem(), ...this.#messages, asked];
    const options = { ...readOptions(), isSanitized: true, signal };
    const prompt = this.#model.hasChat ? this.#session.chat(messages, options) : this.#continue(asked, signal);
    const start = performance.now();
    const times = [];
    let ending = "";
    try {
      for await (const piece of prompt) {
        times.push(performance.now());
        view.add(piece);
        if (piece.finishReason === "length") ending = "reached the length limit";
      }
    } catch (error) {
      if (!signal.aborted || error instanceof GenerationError) throw error;
      ending = "stopped";
    }
    return describe(start, times, ending);
  }

  /**
   * Continue the text, for base models, which have no chat template.
   * @param {import("glm-runtime/core").Message} asked
   * @param {AbortSignal} signal
   */
  #continue(asked, signal) {
    const { enableThinking: _, ...options } = readOptions();
    return this.#session.generate(String(asked.content), { ...options, signal });
  }

  /**
   * @param {unknown} error
   * @param {{ question: HTMLElement, view: AnswerView, text: string, isCurrent: boolean }} shown
   */
  async #fail(error, { question, view, text, isCurrent }) {
    const words = error instanceof Error ? error.message : String(error);
    if (error instanceof PromptError || !view.text) {
      // The question was not answered: put it back into the message field.
      question.remove();
      view.remove();
      const message = /** @type {HTMLTextAreaElement} */ (find("message"));
      if (!message.value && isCurrent) message.value = text;
    } else view.finish("interrupted by an error");
    if (error instanceof GenerationError) await this.#reopen();
    find("problem").textContent = words;
  }

  /** @param {boolean} isBusy */
  #setBusy(isBusy) {
    const hadFocus = [find("send"), find("stop")].includes(/** @type {HTMLElement} */ (document.activeElement));
    disable("message", false);
    disable("send", isBusy);
    disable("new-chat", false);
    disable("show-settings", isBusy);
    find("send").hidden = isBusy;
    find("stop").hidden = !isBusy;
    if (hadFocus) find(isBusy ? "stop" : "message").focus();
  }
}

/**
 * @param {string} id
 * @param {boolean} isDisabled
 */
function disable(id, isDisabled) {
  /** @type {HTMLButtonElement} */ (find(id)).disabled = isDisabled;
}

/**
 * @param {number} start  time of the question in milliseconds
 * @param {number[]} times  time of each token in milliseconds
 * @param {string} ending
 */
function describe(start, times, ending) {
  if (!times.length) return ending;
  const count = times.length;
  const first = `first token after ${((times[0] - start) / 1000).toFixed(2)} s`;
  const seconds = (times[count - 1] - times[0]) / 1000;
  const rate = seconds > 0 ? [`${((count - 1) / seconds).toFixed(1)} tokens/s`] : [];
  return [`${count} ${count === 1 ? "token" : "tokens"}`, ...rate, first, ...(ending ? [ending] : [])].join(", ");
}
