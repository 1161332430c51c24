/** How far a folder is. */

import { formatBytes } from "../src/index.js";
import { find } from "./elements.js";

/** Shown from its making on. */
export class LoadingView {
  #cancel;

  /** @param {() => void} cancel */
  constructor(cancel) {
    this.#cancel = cancel;
    find("loading").hidden = false;
    find("cancel").addEventListener("click", cancel);
    this.#waitFor("Looking for the folder");
  }

  /** @param {import("../src/index.js").LoadProgress} progress */
  show(progress) {
    if ("isStarting" in progress) return this.#waitFor("Starting");
    const bar = /** @type {HTMLProgressElement} */ (find("progress"));
    bar.max = progress.totalBytes;
    bar.value = progress.doneBytes;
    const [done, total] = [progress.doneBytes, progress.totalBytes].map(formatBytes);
    find("progress-text").textContent = `${done} of ${total}: ${progress.name}`;
    return undefined;
  }

  /** The button is somebody else's from now on. */
  end() {
    find("cancel").removeEventListener("click", this.#cancel);
  }

  /** @param {string} text */
  #waitFor(text) {
    find("progress").removeAttribute("value");
    find("progress-text").textContent = text;
    find("announcer").textContent = text;
  }
}
