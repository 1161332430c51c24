/** The settings dialog: options that override the folder's defaults. */

import { find } from "./elements.js";

/** @type {Record<string, "temperature" | "topP" | "seed" | "maxNewTokens">} */
const FIELDS = { temperature: "temperature", "top-p": "topP", seed: "seed", "max-new-tokens": "maxNewTokens" };

export function prepareSettings() {
  const dialog = /** @type {HTMLDialogElement} */ (find("settings"));
  find("show-settings").addEventListener("click", () => dialog.showModal());
}

/**
 * Show the folder's defaults in empty fields.
 * @param {import("glm-runtime/core").Settings} defaults
 */
export function showDefaults(defaults) {
  /** @type {HTMLInputElement} */ (find("temperature")).placeholder = String(defaults.temperature);
  /** @type {HTMLInputElement} */ (find("top-p")).placeholder = String(defaults.topP);
}

/** @returns {import("glm-runtime/core").AnswerOptions & import("glm-runtime/core").ChatOptions} */
export function readOptions() {
  /** @type {Record<string, number | boolean>} */
  const options = {};
  for (const [id, name] of Object.entries(FIELDS)) {
    const { value, valueAsNumber } = /** @type {HTMLInputElement} */ (find(id));
    if (value !== "") options[name] = valueAsNumber;
  }
  if (/** @type {HTMLInputElement} */ (find("thinking")).checked) options.enableThinking = true;
  return options;
}

/** @returns {import("glm-runtime/core").Message[]} */
export function readSystem() {
  const text = /** @type {HTMLTextAreaElement} */ (find("system")).value.trim();
  return text ? [{ role: "system", content: text }] : [];
}
