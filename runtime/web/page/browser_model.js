/** A model that runs in the browser, as a `ChatModel`. */

import { GenerationError, PromptError } from "../src/index.js";

/** The worker's session keeps the KV cache of the current conversation. */
export class BrowserModel {
  #model;
  #session;
  #reopen;

  /**
   * @param {import("../src/index.js").RemoteModel} model
   * @param {() => Promise<unknown>} reopen  loads the model again after an error
   */
  constructor(model, reopen) {
    this.#model = model;
    this.#session = model.newSession();
    this.#reopen = reopen;
  }

  /**
   * @param {import("glm-runtime/core").Message[]} messages
   * @param {import("./settings_view.js").Options} options
   */
  chat(messages, options) {
    if (this.#model.hasChat) return this.#session.chat(messages, { ...options, isSanitized: true });
    // A base model has no chat template, and continues the text.
    const { enableThinking: _, tools: __, ...rest } = options;
    return this.#session.generate(String(messages.at(-1)?.content), rest);
  }

  restart() {
    const old = this.#session;
    this.#session = this.#model.newSession();
    return old.release();
  }

  /** @param {unknown} error */
  isRefusal(error) {
    return error instanceof PromptError;
  }

  /** @param {unknown} error */
  isBroken(error) {
    return error instanceof GenerationError;
  }

  reopen() {
    return this.#reopen();
  }
}
