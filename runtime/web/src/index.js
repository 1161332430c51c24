/**
 * Runs exported folders in a web page: `load(address)`, then `model.chat(messages, options)`.
 *
 * The model runs in a worker; `remote_model.js` is the page's interface to it.
 */

import { GlmRuntimeError } from "glm-runtime/core";

import { BackendError, WASM_ADVICE } from "./errors.js";
import { RemoteModel } from "./remote_model.js";
import { WorkerChannel } from "./worker_channel.js";

export {
  FolderError,
  FormatVersionError,
  GenerationError,
  GlmRuntimeError,
  HostileTemplateError,
  PromptError,
  SamplingError,
} from "glm-runtime/core";
export { AbsentError, BackendError, StorageError, TooLargeError } from "./errors.js";
export { RemoteModel, RemoteSession } from "./remote_model.js";
export { UnreachableError } from "./source_files.js";
export { deleteStored, listStored } from "./stored_folders.js";
export { formatBytes } from "./units.js";

/**
 * @typedef {object} LoadOptions
 * @property {"auto" | "webgpu" | "wasm"} [backend]  `auto` (default) uses WebGPU if the browser has it and it works, otherwise WebAssembly
 * @property {number} [threads]  number of WebAssembly threads; by default half of the browser's logical cores, or 1 if the page is not isolated
 * @property {boolean} [verify]  compare the SHA-256 of saved files again
 * @property {(progress: LoadProgress) => void} [onProgress]  called during the download and when the model starts
 * @property {AbortSignal} [signal]  cancels loading
 */

/** @typedef {import("./fetch_files.js").Progress | { isStarting: true }} LoadProgress */

const MAX_THREADS = 8; // more threads were never tested

/**
 * Open a folder: fetch the files that are not saved in this browser, check them, and start onnxruntime-web.
 * @param {string | URL | readonly File[] | { storedId: string }} from  an address, files that the user picked, or a saved folder
 * @param {LoadOptions} [options]
 * @returns {Promise<RemoteModel>}
 * @throws {import("glm-runtime/core").FolderError} a file is missing, or does not match the manifest.
 * @throws {import("./errors.js").StorageError} the browser's storage is full.
 * @throws {import("./errors.js").TooLargeError} the model is larger than the memory that a page can use.
 */
export async function load(from, options = {}) {
  const { backend = "auto", threads = countThreads(), verify = false } = options;
  requireOptions(backend, threads);
  const source = typeof from === "string" || from instanceof URL ? resolve(String(from)) : from;
  const request = { from: source instanceof FileList ? [...source] : source, threads, verify };
  if (backend === "wasm" || (backend === "auto" && !(await hasWebGpu()))) return open({ ...request, backend: "wasm" }, options);
  try {
    return await open({ ...request, backend: "webgpu" }, options);
  } catch (error) {
    if (backend === "webgpu" || !(error instanceof BackendError)) throw error;
    const model = await open({ ...request, backend: "wasm" }, options);
    const found = error.message.replace(WASM_ADVICE, "WebAssembly is used instead");
    model.note = [model.note, found].filter(Boolean).join("; ");
    return model;
  }
}

/**
 * @param {any} request
 * @param {LoadOptions} options
 */
async function open(request, { onProgress, signal }) {
  const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  const channel = new WorkerChannel(worker);
  let isStarting = false;
  // onnxruntime-web cannot be cancelled while it starts, so its worker is ended. A download cancels itself and closes its files.
  const abort = () => isStarting && channel.close();
  /** @param {LoadProgress} progress */
  const onReport = (progress) => {
    isStarting = "isStarting" in progress;
    if (signal?.aborted) abort();
    else onProgress?.(progress);
  };
  signal?.addEventListener("abort", abort);
  try {
    const opened = await channel.call("open", request, { onReport, signal });
    signal?.throwIfAborted();
    return new RemoteModel(channel, { ...opened, backend: request.backend, threads: request.threads });
  } catch (error) {
    channel.close();
    throw error;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/**
 * Make an address absolute. An invalid address is returned unchanged; the worker reports it.
 * @param {string} address
 */
function resolve(address) {
  return URL.canParse(address, document.baseURI) ? new URL(address, document.baseURI).href : address;
}

/** Threads need shared memory, which browsers allow in isolated pages only. Browsers count two logical cores per physical core. */
function countThreads() {
  const cores = Math.ceil((navigator.hardwareConcurrency || 1) / 2);
  return globalThis.crossOriginIsolated ? Math.min(cores, MAX_THREADS) : 1;
}

async function hasWebGpu() {
  const gpu = /** @type {any} */ (navigator).gpu;
  return Boolean(await gpu?.requestAdapter().catch(() => null));
}

/**
 * @param {unknown} backend
 * @param {unknown} threads
 */
function requireOptions(backend, threads) {
  if (!["auto", "webgpu", "wasm"].includes(String(backend))) {
    throw new GlmRuntimeError(`backend is ${JSON.stringify(backend)} where auto, webgpu or wasm is expected; choose one.`);
  }
  if (Number.isInteger(threads) && Number(threads) >= 1 && Number(threads) <= 1024) return;
  throw new GlmRuntimeError(`threads is ${threads} where 1 to 1024 is expected; leave it out to use half of the logical cores, at most ${MAX_THREADS}.`);
}
