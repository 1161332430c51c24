/** The list of turns: clears it, appends to it, and keeps its end in view while an answer grows. */

import { find, make } from "./elements.js";

const NEAR_END_PIXELS = 120;

/**
 * Append a turn.
 * @param {string} className
 * @param {string} title  for screen readers
 * @param {Node[]} parts
 * @returns {HTMLElement}
 */
export function appendTurn(className, title, parts) {
  find("hint").hidden = true;
  const item = make("li", { className: `turn ${className}`, parts: [make("h2", { className: "unseen", text: title }), ...parts] });
  find("turns").append(item);
  return item;
}

export function clearTurns() {
  find("turns").replaceChildren();
  find("hint").hidden = false;
}

/** @param {string} text */
export function makeText(text) {
  const element = make("p", { className: "text plain", text });
  element.dir = "auto";
  return element;
}

export function isNearEnd() {
  const { scrollHeight, clientHeight, scrollTop } = document.documentElement;
  return scrollHeight - clientHeight - scrollTop < NEAR_END_PIXELS;
}

/** @param {boolean} [isWanted] */
export function scrollToEnd(isWanted = true) {
  if (isWanted) document.documentElement.scrollTop = document.documentElement.scrollHeight;
}
