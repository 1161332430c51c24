/** Strings that the browser remembers for the page, where it is allowed to. */

/**
 * @param {"localStorage" | "sessionStorage"} where  its very name throws where site data is blocked
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
 * @returns {boolean} whether it will be known
 */
export function remember(where, name, value) {
  try {
    window[where].setItem(name, value);
    return true;
  } catch {
    return false;
  }
}
