/** Finds the elements of `index.html`, and makes new ones. Text is inserted as text, never as HTML. */

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
 */
export function makeButton(text, action) {
  const button = make("button", { text });
  button.type = "button";
  button.addEventListener("click", action);
  return button;
}
