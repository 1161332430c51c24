/** The page: opens a model, and starts a chat with it. `window.glm` is its interface for scripts. */

import { AbsentError, UnreachableError, load } from "../src/index.js";
import { BrowserModel } from "./browser_model.js";
import { CURRENT, Chat } from "./chat.js";
import { ChatsView } from "./chats_view.js";
import { newConversation } from "./conversation.js";
import { ConversationStore } from "./conversation_store.js";
import { find, showProblem } from "./elements.js";
import { isolatePage } from "./isolation.js";
import { LoadingView } from "./loading_view.js";
import { hideModels, prepareModels, showModels } from "./models_view.js";
import { recall, remember } from "./remembered.js";
import { prepareSettings, showDefaults } from "./settings_view.js";

const LAST_ADDRESS = "glm-last"; // key in local storage
const DEFAULT_FOLDER = "model/"; // a folder that is published beside the page
const LINKED = readLinked();

/** @typedef {import("./models_view.js").From} From */

/** @type {import("../src/index.js").RemoteModel | null} */ let model = null;
/** @type {Chat | null} */ let chat = null;
const store = await ConversationStore.open();
const chats = new ChatsView(store, () => chat);
let resumed = recall("sessionStorage", CURRENT); // id of the conversation that the first model continues
let pageNote = "";
/** @type {AbortController | null} */ let opening = null;

/**
 * Open a model, and close the current one.
 * @param {From} from
 * @returns {Promise<import("../src/index.js").RemoteModel>}
 */
async function open(from) {
  opening?.abort();
  const mine = (opening = new AbortController());
  showProblem("");
  hideModels();
  const loading = new LoadingView(() => mine.abort());
  /** @param {import("../src/index.js").LoadProgress} progress */
  const onProgress = (progress) => {
    if ("isStarting" in progress) close(); // not earlier: a failed download must not end the current conversation
    loading.show(progress);
  };
  try {
    const opened = await load(from, { ...readAddress(), signal: mine.signal, onProgress });
    const conversation = (resumed && (await store.find(resumed))) || newConversation();
    if (mine.signal.aborted) opened.release(); // the user has chosen another model
    mine.signal.throwIfAborted();
    begin(opened, from, conversation);
    return opened;
  } finally {
    loading.end();
    if (opening === mine) {
      opening = null;
      find("loading").hidden = true;
    }
  }
}

/**
 * @param {import("../src/index.js").RemoteModel} opened
 * @param {From} from
 * @param {import("./conversation.js").Conversation} conversation
 */
function begin(opened, from, conversation) {
  close();
  hideModels();
  model = opened;
  // Ask the browser not to delete saved models when the disk is full. Some browsers ask the user.
  navigator.storage?.persist?.().catch(() => {});
  if (typeof from === "string" && from !== LINKED) remember("localStorage", LAST_ADDRESS, from);
  showDefaults(model.defaults);
  const reopen = () => {
    resumed = chat?.conversation.id ?? null;
    close();
    return tryOpen(from);
  };
  resumed = null;
  chat = new Chat(new BrowserModel(opened, reopen), { conversation, save: chats.save });
  showFacts();
  chats.start();
}

/** The options `?backend=` and `?threads=` of the page's address. */
function readAddress() {
  const wanted = new URLSearchParams(location.search);
  const threads = wanted.get("threads");
  return { backend: /** @type {any} */ (wanted.get("backend") ?? "auto"), ...(threads ? { threads: Number(threads) } : {}) };
}

/** The folder in the page's address, which any link may have chosen; absolute, if it is valid. */
function readLinked() {
  const linked = new URLSearchParams(location.search).get("model");
  return linked && URL.canParse(linked, document.baseURI) ? new URL(linked, document.baseURI).href : linked;
}

function close() {
  chat?.close();
  chats.end();
  model?.release();
  model = chat = null;
  find("facts").textContent = "No model is open.";
}

/**
 * Open a model, and show the error if that fails.
 * @param {From} from
 */
async function tryOpen(from) {
  try {
    await open(from);
  } catch (error) {
    await explain(error);
  }
}

/** @param {unknown} error  thrown by `open` */
async function explain(error) {
  if (opening) return; // another model is being opened
  await showModels(tryOpen);
  const isCancelled = error instanceof DOMException && error.name === "AbortError";
  find("problem").textContent = isCancelled ? "" : error instanceof Error ? error.message : String(error);
}

function showFacts() {
  if (!model) return;
  const { backend, threads, label, note } = model;
  const engine = backend === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} ${threads === 1 ? "thread" : "threads"}`;
  find("facts").textContent = [`${label.split("/").at(-1)} on ${engine}`, note, pageNote].filter(Boolean).join("; ") + ".";
}

/**
 * Ask before anything is downloaded from another origin.
 * @param {string} address
 */
async function confirmLink(address) {
  await showModels(tryOpen);
  /** @type {HTMLInputElement} */ (find("address")).value = address;
  find("problem").textContent = `A link chose the model at ${address}, which is on another server. Press Download to load it.`;
}

/** Open the folder in the page's address, or the folder beside the page, or the last address. */
async function openFirst() {
  if (LINKED) return URL.canParse(LINKED) && new URL(LINKED).origin !== location.origin ? confirmLink(LINKED) : tryOpen(LINKED);
  const standard = new URL(DEFAULT_FOLDER, document.baseURI).href;
  const last = recall("localStorage", LAST_ADDRESS);
  for (const address of new Set([standard, ...(last ? [last] : [])])) {
    try {
      return void (await open(address));
    } catch (error) {
      if (error instanceof AbsentError || error instanceof UnreachableError) continue;
      return explain(error);
    }
  }
  if (!opening && !model) await showModels(tryOpen);
}

prepareSettings();
prepareModels(tryOpen);
pageNote = await isolatePage();
const ready = openFirst();

Object.defineProperty(window, "glm", {
  value: Object.freeze({
    /** Resolves when the first model is open, or the page asks for one. */
    ready,
    open,
    get model() {
      return model;
    },
  }),
});
