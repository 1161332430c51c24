/** Finds the elements of `index.html`, and makes new ones. Text is inserted as text, never as HTML. */

const COPIED_MS = 2000;

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function find(id) {
  return /** @type {T} */ (document.getElementById(id));
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {{ className?: string, text?: string, parts?: (Node | string)[] }} [content]
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, { className = "", text = "", parts = [] } = {}) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...(text ? [text] : parts));
  return element;
}

/**
 * @param {string} text
 * @param {() => void} action
 * @param {string} [label]  what a screen reader says instead of the text
 */
export function makeButton(text, action, label) {
  const button = make("button", { text });
  button.type = "button";
  button.addEventListener("click", action);
  if (label) button.setAttribute("aria-label", label);
  return button;
}

/**
 * @param {string} label
 * @param {() => string} read  what is copied
 */
export function makeCopyButton(label, read) {
  const button = makeButton("Copy", () => copy(button, read()), label);
  return button;
}

/**
 * @param {HTMLButtonElement} button
 * @param {string} text
 */
async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copying is not allowed"; // by the browser, or without https
  }
  announce(button.textContent);
  setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
}

/**
 * Let a screen reader say a text.
 * @param {string} text
 */
export function announce(text) {
  find("announcer").textContent = text;
}

/** @param {string} text  empty if nothing is wrong */
export function showProblem(text) {
  find("problem").textContent = text;
}

/**
 * @param {string} id
 * @param {boolean} isDisabled
 */
export function disable(id, isDisabled) {
  /** @type {HTMLButtonElement} */ (find(id)).disabled = isDisabled;
}
