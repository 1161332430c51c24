/** Shows the progress of loading a model. */

import { formatBytes } from "../src/index.js";
import { find } from "./elements.js";

/** The progress of one model; visible from its construction on. */
export class LoadingView {
  #cancel;

  /** @param {() => void} cancel */
  constructor(cancel) {
    this.#cancel = cancel;
    find("loading").hidden = false;
    find("cancel").addEventListener("click", cancel);
    this.#waitFor("Reading the manifest");
  }

  /** @param {import("../src/index.js").LoadProgress} progress */
  show(progress) {
    if ("isStarting" in progress) return this.#waitFor("Starting the model");
    const bar = /** @type {HTMLProgressElement} */ (find("progress"));
    bar.max = progress.totalBytes;
    bar.value = progress.doneBytes;
    const [done, total] = [progress.doneBytes, progress.totalBytes].map(formatBytes);
    find("progress-text").textContent = `${done} of ${total}: ${progress.name}`;
    return undefined;
  }

  /** Stop using the Cancel button. */
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
