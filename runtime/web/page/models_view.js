/** The list of models: pick or drop a folder, download one from an address, or open a saved one. */

import { deleteStored, formatBytes, listStored } from "../src/index.js";
import { find, make, makeButton, showProblem } from "./elements.js";

/** @typedef {string | File[] | { storedId: string }} From */

/** @param {(from: From) => void} open */
export function prepareModels(open) {
  const pick = /** @type {HTMLInputElement} */ (find("pick"));
  pick.addEventListener("change", () => {
    const files = [...(pick.files ?? [])];
    pick.value = ""; // otherwise picking the same folder again has no effect
    if (files.length) open(files);
  });
  find("fetch").addEventListener("submit", (event) => {
    event.preventDefault();
    open(/** @type {HTMLInputElement} */ (find("address")).value.trim());
  });
  find("show-models").addEventListener("click", () => (find("models").hidden ? showModels(open) : hideModels()));
  prepareDrop(open);
}

/** @param {(from: From) => void} open */
export async function showModels(open) {
  setShown(true);
  await showKept(open);
}

export function hideModels() {
  setShown(false);
}

/** @param {boolean} isShown */
function setShown(isShown) {
  find("models").hidden = !isShown;
  find("show-models").setAttribute("aria-expanded", String(isShown));
}

/** @param {(from: From) => void} open */
async function showKept(open) {
  const kept = await listStored();
  const items = kept.map((one) => {
    const words = make("span", { className: "name", text: `${one.label}, ${formatBytes(one.sizeBytes)}` });
    const use = makeButton("Open", () => open({ storedId: one.id }), `Open ${one.label}`);
    const remove = makeButton("Delete", async () => {
      await deleteStored(one.id).catch(() => showProblem(`${one.label} is in use; close the tab that uses it.`));
      await showKept(open);
      find("models-title").focus();
    }, `Delete ${one.label}`);
    return make("li", { parts: one.isWhole ? [words, use, remove] : [words, remove] });
  });
  find("kept").replaceChildren(...items);
  find("kept-title").hidden = !items.length;
}

/** @param {(from: From) => void} open */
function prepareDrop(open) {
  const area = find("drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // otherwise the browser would open the dropped file instead of this page
    area.classList.toggle("is-over", area.contains(/** @type {Node} */ (event.target)));
  });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    area.classList.remove("is-over");
    const files = await readDropped(event.dataTransfer);
    if (files.length) open(files);
  });
}

/**
 * The dropped files, or the files of a dropped folder.
 * @param {DataTransfer | null} transfer
 * @returns {Promise<File[]>}
 */
async function readDropped(transfer) {
  const entries = [...(transfer?.items ?? [])].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const inside = [];
  for (const entry of entries) {
    if (entry.isDirectory) inside.push(...(await readEntries(/** @type {FileSystemDirectoryEntry} */ (entry))));
    else inside.push(entry);
  }
  const files = inside.filter((entry) => entry.isFile);
  return Promise.all(
    files.map((entry) => new Promise((resolve, reject) => /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject))),
  );
}

/**
 * @param {FileSystemDirectoryEntry} folder
 * @returns {Promise<FileSystemEntry[]>}
 */
async function readEntries(folder) {
  const reader = folder.createReader();
  const found = [];
  while (true) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found; // readEntries gives a hundred at a time
    found.push(...some);
  }
}
