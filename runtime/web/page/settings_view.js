/** The settings dialog: options that override the model's defaults. The browser keeps them. */

import { find } from "./elements.js";
import { recall, remember } from "./remembered.js";

const KEPT = "glm-settings"; // key in local storage
/** @type {Record<string, "temperature" | "topP" | "topK" | "minP" | "repetitionPenalty" | "presencePenalty" | "frequencyPenalty" | "seed" | "maxNewTokens">} */
const FIELDS = {
  temperature: "temperature",
  "top-p": "topP",
  "top-k": "topK",
  "min-p": "minP",
  "repetition-penalty": "repetitionPenalty",
  "presence-penalty": "presencePenalty",
  "frequency-penalty": "frequencyPenalty",
  seed: "seed",
  "max-new-tokens": "maxNewTokens",
};
const TEXTS = ["system", "tools", "thinking"];

/** @typedef {import("glm-runtime/core").AnswerOptions & import("glm-runtime/core").ChatOptions} Options */

export function prepareSettings() {
  const dialog = /** @type {HTMLDialogElement} */ (find("settings"));
  find("show-settings").addEventListener("click", () => dialog.showModal());
  recallFields();
  dialog.addEventListener("close", keepFields);
  const tools = field("tools");
  tools.addEventListener("input", () => tools.setCustomValidity(explainTools(tools.value)));
  // The browser shows the reason where a submit is refused; a closed group would hide it.
  tools.addEventListener("invalid", () => (/** @type {HTMLDetailsElement} */ (tools.closest("details")).open = true));
}

/**
 * Show the folder's defaults in empty fields.
 * @param {import("glm-runtime/core").Settings} defaults
 */
export function showDefaults(defaults) {
  for (const [id, name] of Object.entries(FIELDS)) {
    if (defaults[name] !== null) /** @type {HTMLInputElement} */ (field(id)).placeholder = String(defaults[name]);
  }
}

/**
 * @returns {Options}
 * @throws {SyntaxError} the tools are not a JSON list.
 */
export function readOptions() {
  /** @type {Record<string, any>} */
  const options = {};
  for (const [id, name] of Object.entries(FIELDS)) {
    const { value, valueAsNumber } = /** @type {HTMLInputElement} */ (field(id));
    if (value !== "") options[name] = valueAsNumber;
  }
  const thinking = field("thinking").value;
  if (thinking) options.enableThinking = thinking === "on";
  const problem = explainTools(field("tools").value);
  if (problem) throw new SyntaxError(problem);
  const tools = field("tools").value.trim();
  return tools ? { ...options, tools: JSON.parse(tools) } : options;
}

/** @returns {import("glm-runtime/core").Message[]} */
export function readSystem() {
  const text = field("system").value.trim();
  return text ? [{ role: "system", content: text }] : [];
}

/**
 * What is wrong with the tools; empty if nothing is.
 * @param {string} text
 */
function explainTools(text) {
  if (!text.trim()) return "";
  let found;
  try {
    found = JSON.parse(text);
  } catch (error) {
    return `The tools are not JSON (${/** @type {Error} */ (error).message}); correct them in the settings.`;
  }
  return Array.isArray(found) ? "" : "The tools are not a JSON list; write [...] around them in the settings.";
}

function recallFields() {
  /** @type {Record<string, unknown>} */
  let kept = {};
  try {
    kept = JSON.parse(recall("localStorage", KEPT) ?? "{}");
  } catch {
    return; // somebody else wrote it
  }
  if (kept.thinking === true) kept.thinking = "on"; // as an earlier page wrote it
  for (const id of [...Object.keys(FIELDS), ...TEXTS]) field(id).value = String(kept[id] ?? "");
}

function keepFields() {
  const filled = [...Object.keys(FIELDS), ...TEXTS].map((id) => [id, field(id).value]).filter(([, value]) => value !== "");
  remember("localStorage", KEPT, JSON.stringify(Object.fromEntries(filled)));
}

/** @param {string} id */
function field(id) {
  return /** @type {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} */ (find(id));
}
