/** Reads and writes short strings in the browser's storage. A user may have blocked it. */

/**
 * @param {"localStorage" | "sessionStorage"} where  accessing the property throws if site data is blocked
 * @param {string} name
 * @returns {string | null}
 */
export function recall(where, name) {
  try {
    return window[where].getItem(name);
  } catch {
    return null;
  }
}

/**
 * @param {"localStorage" | "sessionStorage"} where
 * @param {string} name
 * @param {string} value
 * @returns {boolean} whether it was stored
 */
export function remember(where, name, value) {
  try {
    window[where].setItem(name, value);
    return true;
  } catch {
    return false;
  }
}
