/** The dialog that asks for the server's API key. */

import { find } from "./elements.js";

/**
 * @param {boolean} wasRefused  whether the server refused the last key
 * @returns {Promise<string | null>} `null` if the user gives none
 */
export function askForKey(wasRefused) {
  const dialog = /** @type {HTMLDialogElement} */ (find("key"));
  const field = /** @type {HTMLInputElement} */ (find("api-key"));
  find("key-problem").textContent = wasRefused ? "The server refused this key." : "";
  field.setAttribute("aria-invalid", String(wasRefused));
  dialog.returnValue = "";
  dialog.showModal();
  field.select();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "use" ? field.value : null), { once: true });
  });
}

export function prepareKey() {
  const dialog = /** @type {HTMLDialogElement} */ (find("key"));
  find("key-cancel").addEventListener("click", () => dialog.close());
}
