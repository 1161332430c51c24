/** The message field with its Send and Stop buttons. */

import { find } from "./elements.js";

const IS_COMPOSING = 229; // keyCode while an input method is open; Safari has no other sign of it

/** Listens until it is closed. */
export class Composer {
  #listeners = new AbortController();

  /** @param {{ send: (text: string) => void, stop: () => void }} actions */
  constructor({ send, stop }) {
    const { signal } = this.#listeners;
    const submit = () => {
      const { value: text } = /** @type {HTMLTextAreaElement} */ (find("message"));
      if (text.trim()) send(text);
    };
    find("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      submit();
    }, { signal });
    find("message").addEventListener("keydown", (event) => {
      const isEnter = event.key === "Enter" && !event.shiftKey;
      if (!isEnter || event.isComposing || event.keyCode === IS_COMPOSING) return;
      event.preventDefault();
      submit();
    }, { signal });
    find("stop").addEventListener("click", stop, { signal });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]")) stop();
    }, { signal });
  }

  get isClosed() {
    return this.#listeners.signal.aborted;
  }

  close() {
    this.#listeners.abort();
  }
}
