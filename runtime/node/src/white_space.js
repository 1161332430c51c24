/** Removes white space from the ends of a text, like Python's `str.strip`; `trim` also removes a BOM, and keeps U+001C. */

const SPACES = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const FRONT = new RegExp(`^[${SPACES}]+`);
const SPACE = new RegExp(`[${SPACES}]`);

/** @param {string} text */
export function stripFront(text) {
  return text.replace(FRONT, "");
}

/** @param {string} text */
export function stripBack(text) {
  let end = text.length; // a pattern at the end would try every beginning
  while (end > 0 && SPACE.test(text[end - 1])) end -= 1;
  return text.slice(0, end);
}

/** @param {string} text */
export function strip(text) {
  return stripFront(stripBack(text));
}
