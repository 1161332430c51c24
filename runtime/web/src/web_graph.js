/**
 * Opens a folder's graph with onnxruntime-web, on WebGPU or WebAssembly.
 *
 * onnxruntime-web cannot write outputs in place, so the keys and values of each run become inputs of
 * the next run. With WebGPU they stay on the GPU.
 */

import {
  FolderError,
  GlmRuntimeError,
  Graph,
  checkTensors,
  firstLine,
  listCacheNames,
  requireVersion,
} from "glm-runtime/core";

import { BackendError, TooLargeError, WASM_ADVICE } from "./errors.js";
import { probeGraph } from "./probe_graph.js";
import { formatBytes } from "./units.js";

const GRAPH_NAME = "model.onnx";
const DATA_NAME = "model.onnx.data";
const READ_BYTES = 2 ** 26; // size of one read

/**
 * Number of tokens in one chunk of the chunked prefill. In WebAssembly a larger chunk would be faster,
 * but the Stop button slower. With WebGPU on SwiftShader, onnxruntime-web 1.30 computes wrong logits
 * for 32 or more tokens on some processors. To try another version or device, set `webgpu` to 128 and
 * run `test/webgpu.test.js`.
 */
const CHUNK_TOKENS = { wasm: 32, webgpu: 16 };

/** @typedef {"wasm" | "webgpu"} Backend */
/** @typedef {import("glm-runtime/core").ModelEntry} ModelEntry */
/** @typedef {typeof import("onnxruntime-web")} OnnxRuntime */

/**
 * @typedef {object} GraphRequest
 * @property {import("./stored_folders.js").FileFolder} folder
 * @property {ModelEntry} model
 * @property {Backend} backend
 * @property {number} threads  number of WebAssembly threads
 */

/**
 * Load a graph and its weights.
 * @param {GraphRequest} request
 * @returns {Promise<Graph>}
 * @throws {BackendError} WebGPU cannot run the graph.
 * @throws {FolderError} onnxruntime cannot load the graph, or a tensor does not match the manifest.
 * @throws {TooLargeError} there is not enough memory for the weights.
 */
export async function openGraph({ folder, model, backend, threads }) {
  const runtime = await importRuntime(backend, threads);
  requireVersion(model, "onnxruntime-web", runtime.env.versions.web);
  const session = await createSession(runtime, folder, model, backend);
  checkTensors(session, model);
  const traits = { isInPlace: false, chunkTokens: CHUNK_TOKENS[backend] };
  const graph = new YieldingGraph(session, runtime.Tensor, traits);
  if (backend === "webgpu") await probeGraph(graph, model);
  return graph;
}

/** A graph that lets the worker receive messages between two runs; onnxruntime-web alone never does. */
class YieldingGraph extends Graph {
  /** @type {Promise<unknown>} */ #last = Promise.resolve();

  /**
   * @param {Parameters<Graph["run"]>[0]} feeds
   * @param {Parameters<Graph["run"]>[1]} [fetches]
   */
  run(feeds, fetches) {
    // Runs are serialized: WebGPU in onnxruntime-web 1.30 hangs forever if two runs overlap.
    const run = this.#last.then(waitForMessages).then(() => super.run(feeds, fetches));
    this.#last = run.catch(() => {});
    return run;
  }
}

/** Wait for one turn of the event loop. setTimeout would wait for 4 ms. */
function waitForMessages() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve(undefined);
    };
    port2.postMessage(null);
  });
}

/**
 * @param {Backend} backend
 * @param {number} threads
 * @returns {Promise<OnnxRuntime>}
 */
async function importRuntime(backend, threads) {
  const base = new URL("onnxruntime/", import.meta.url).href;
  const runtime = await import(`${base}ort.${backend}.min.mjs`).catch((error) => {
    // This also fails in an older page after an update: the service worker refuses files of another version.
    throw new GlmRuntimeError(
      `onnxruntime-web cannot be loaded (${firstLine(error)}); check the connection, or close all tabs of this page and open it again.`,
      error,
    );
  });
  runtime.env.wasm.wasmPaths = base;
  runtime.env.wasm.numThreads = threads;
  runtime.env.logLevel = "error";
  return runtime;
}

/**
 * @param {OnnxRuntime} runtime
 * @param {GraphRequest["folder"]} folder
 * @param {ModelEntry} model
 * @param {Backend} backend
 */
async function createSession(runtime, folder, model, backend) {
  const graph = await readLarge(folder, GRAPH_NAME);
  const names = await folder.listNames();
  const data = names.includes(DATA_NAME) ? [{ path: DATA_NAME, data: await readLarge(folder, DATA_NAME) }] : [];
  const present = listCacheNames(model).map((name) => [`present.${name}`, "gpu-buffer"]);
  try {
    return await runtime.InferenceSession.create(graph, {
      executionProviders: [backend],
      externalData: data,
      logSeverityLevel: 3,
      // onnxruntime would store a memory plan for every input shape, and every step has another shape.
      enableMemPattern: false,
      ...(backend === "webgpu" ? { preferredOutputLocation: Object.fromEntries(present) } : {}),
    });
  } catch (error) {
    throw explain(error, backend);
  }
}

/**
 * @param {unknown} error
 * @param {Backend} backend
 */
function explain(error, backend) {
  const found = firstLine(error);
  if (backend === "webgpu") {
    return new BackendError(`WebGPU cannot load this graph (${found}); ${WASM_ADVICE}`, error);
  }
  if (/out of memory|bad_alloc|aborted|failed to allocate/i.test(found)) {
    return new TooLargeError(`there is not enough memory for the weights (${found}); close other tabs, or use a smaller model.`, error);
  }
  return new FolderError(`onnxruntime-web cannot load model.onnx (${found}); check the folder with \`glm-run doctor\`.`, error);
}

/**
 * Read a file that may be too large for `arrayBuffer()`.
 * @param {GraphRequest["folder"]} folder
 * @param {string} name
 * @throws {TooLargeError} the browser cannot allocate an array of this size.
 */
async function readLarge(folder, name) {
  const file = await folder.open(name);
  let bytes;
  try {
    bytes = new Uint8Array(file.size);
  } catch (error) {
    throw new TooLargeError(
      `there is not enough memory for ${name} (${formatBytes(file.size)}); close other tabs, or use a smaller model.`,
      error,
    );
  }
  for (let start = 0; start < file.size; start += READ_BYTES) {
    bytes.set(new Uint8Array(await file.slice(start, start + READ_BYTES).arrayBuffer()), start);
  }
  return bytes;
}
