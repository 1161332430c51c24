/**
 * Folders that `glm-export` wrote, in a page: `load(address)`, then `model.chat(messages, options)`.
 *
 * What computes lives in a worker of its own; `remote_model.js` is its face here.
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
 * @property {"auto" | "webgpu" | "wasm"} [backend]  `auto` takes WebGPU where it is and works, else WebAssembly
 * @property {number} [threads]  of WebAssembly; without, half of what the browser counts, or 1 where the page is not isolated
 * @property {boolean} [verify]  compare every byte of a folder that was kept with its hashes once more
 * @property {(progress: LoadProgress) => void} [onProgress]
 * @property {AbortSignal} [signal]  ends a download, and a start
 */

/** @typedef {import("./fetch_files.js").Progress | { isStarting: true }} LoadProgress */

const MOST_THREADS = 8; // more were never tried

/**
 * Open a folder: fetch what is not kept in this browser yet, check it, start onnxruntime-web.
 * @param {string | URL | readonly File[] | { storedId: string }} from  an address, what the user picked, or a kept folder
 * @param {LoadOptions} [options]
 * @returns {Promise<RemoteModel>}
 * @throws {import("glm-runtime/core").FolderError} the folder is not whole, or not what its manifest promises.
 * @throws {import("./errors.js").StorageError} the browser has no room for it.
 * @throws {import("./errors.js").TooLargeError} no page could hold it.
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
  // onnxruntime-web cannot be interrupted while it starts; a download can, and closes its files.
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
 * What is no address stays as it is: the worker says so.
 * @param {string} address
 */
function resolve(address) {
  return URL.canParse(address, document.baseURI) ? new URL(address, document.baseURI).href : address;
}

/** Threads share memory, which browsers allow to isolated pages only. Two run on one core, as browsers count. */
function countThreads() {
  const cores = Math.ceil((navigator.hardwareConcurrency || 1) / 2);
  return globalThis.crossOriginIsolated ? Math.min(cores, MOST_THREADS) : 1;
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
  if (Number.isInteger(threads) && Number(threads) >= 1) return;
  throw new GlmRuntimeError(`threads is ${threads} where 1 or more is expected; leave it out to use half of the cores, at most ${MOST_THREADS}.`);
}
