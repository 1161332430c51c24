/** The page: opens a model, then asks and answers. `window.glm` is what it offers to scripts. */

import { FolderError, load } from "../src/index.js";
import { Chat } from "./chat.js";
import { find } from "./elements.js";
import { isolatePage } from "./isolation.js";
import { LoadingView } from "./loading_view.js";
import { prepareModels, showModels } from "./models_view.js";
import { prepareSettings, showDefaults } from "./settings_view.js";

const LAST = "glm-last"; // what was opened last
const BESIDE = "model/"; // a folder that is published with the page

/** @typedef {import("./models_view.js").From} From */

/** @type {import("../src/index.js").RemoteModel | null} */ let model = null;
/** @type {Chat | null} */ let chat = null;
let pageNote = "";
/** @type {AbortController | null} */ let opening = null;

/**
 * Open a model in place of the one that is open.
 * @param {From} from
 * @returns {Promise<import("../src/index.js").RemoteModel>}
 */
async function open(from) {
  opening?.abort();
  const mine = (opening = new AbortController());
  close();
  const loading = new LoadingView(() => mine.abort());
  try {
    const onProgress = (/** @type {any} */ progress) => mine.signal.aborted || loading.show(progress);
    model = await load(from, { ...readAddress(), signal: mine.signal, onProgress });
  } finally {
    loading.end();
    if (opening === mine) {
      opening = null;
      find("loading").hidden = true;
    }
  }
  // Some browsers ask the user; without a yes they may delete what is kept when the disk is full.
  navigator.storage?.persist?.().catch(() => {});
  if (typeof from === "string") localStorage.setItem(LAST, from);
  await showModels(false, tryOpen);
  showDefaults(model.defaults);
  chat = new Chat(model, () => open(from));
  showFacts();
  return model;
}

/** What `?backend=` and `?threads=` say. */
function readAddress() {
  const wanted = new URLSearchParams(location.search);
  const threads = wanted.get("threads");
  return { backend: /** @type {any} */ (wanted.get("backend") ?? "auto"), ...(threads ? { threads: Number(threads) } : {}) };
}

function close() {
  find("problem").textContent = "";
  chat?.close();
  model?.release();
  model = chat = null;
  find("models").hidden = true;
  find("facts").textContent = "No model is open.";
}

/**
 * Open, and say what is wrong.
 * @param {From} from
 */
async function tryOpen(from) {
  try {
    await open(from);
  } catch (error) {
    const isCancelled = error instanceof DOMException && error.name === "AbortError";
    if (opening) return; // another model is being opened by now
    await showModels(true, tryOpen);
    find("problem").textContent = isCancelled ? "" : error instanceof Error ? error.message : String(error);
  }
}

function showFacts() {
  if (!model) return;
  const { backend, threads, label, note } = model;
  const engine = backend === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} ${threads === 1 ? "thread" : "threads"}`;
  find("facts").textContent = [`${label.replace(/^https?:\/\//, "")}: ${engine}`, note, pageNote].filter(Boolean).join("; ") + ".";
}

/** What the address asks for, the folder beside the page, or the last one. */
async function openFirst() {
  const wanted = new URLSearchParams(location.search).get("model");
  if (wanted) return tryOpen(new URL(wanted, document.baseURI).href);
  const beside = new URL(BESIDE, document.baseURI).href;
  const last = localStorage.getItem(LAST);
  for (const address of new Set([beside, ...(last ? [last] : [])])) {
    try {
      return void (await open(address));
    } catch (error) {
      const isAbsent = error instanceof FolderError && /(is missing|cannot be reached)/.test(error.message);
      if (isAbsent) continue;
      find("problem").textContent = error instanceof Error ? error.message : String(error);
      break;
    }
  }
  return showModels(true, tryOpen);
}

prepareSettings();
prepareModels(tryOpen);
find("new-chat").addEventListener("click", () => chat?.restart());
pageNote = await isolatePage();
const ready = openFirst();

Object.defineProperty(window, "glm", {
  value: Object.freeze({
    /** Settled when the first model is open, or the page waits for one. */
    ready,
    open,
    get model() {
      return model;
    },
  }),
});
