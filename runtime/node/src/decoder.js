/**
 * Runs the graph: tokens in, logits of the last position out, the KV cache kept in place.
 *
 * Knows the graph's tensor names and nothing about text or sampling. onnxruntime-node runs a graph
 * on the thread that asks, so the event loop turns between two runs, not within one.
 */

import { InferenceSession, Tensor } from "onnxruntime-node";

import { FolderError, GenerationError, PromptError, firstLine } from "./errors.js";
import { KvCache } from "./kv_cache.js";

export const PREFILL_CHUNK = 128; // tokens; bounds the memory of a long prompt, as in Python

/** @typedef {import("./manifest.js").ModelEntry} ModelEntry */

/**
 * Load a graph and its weights, and compare its tensors with what the manifest says.
 * @param {string} path  of the `.onnx` file; its weights lie beside it
 * @param {ModelEntry} model
 * @param {number} [threads]
 * @returns {Promise<InferenceSession>}
 * @throws {FolderError} onnxruntime refuses the graph, or a tensor is not as promised.
 */
export async function openGraph(path, model, threads) {
  const session = await createSession(path, threads);
  try {
    checkTensors(session, model);
  } catch (error) {
    await session.release(); // or Windows keeps the folder's files from being replaced
    throw error;
  }
  return session;
}

/**
 * @param {InferenceSession} session
 * @param {ModelEntry} model
 * @throws {FolderError}
 */
function checkTensors(session, model) {
  const found = new Map([...session.inputMetadata, ...session.outputMetadata].map((one) => [one.name, one]));
  for (const [name, type, shape] of listTensors(model)) {
    const tensor = found.get(name);
    if (!tensor?.isTensor) {
      throw new FolderError(
        `model.onnx has no tensor ${JSON.stringify(name)} where the manifest promises one; ` +
          "export the checkpoint again.",
      );
    }
    const fits = tensor.shape.length === shape.length && shape.every((size, axis) => {
      return size === null || typeof tensor.shape[axis] !== "number" || tensor.shape[axis] === size;
    });
    if (tensor.type !== type || !fits) {
      throw new FolderError(
        `model.onnx: ${name} is ${tensor.type} ${JSON.stringify(tensor.shape)} where the manifest promises ` +
          `${type} ${JSON.stringify(shape)}; export the checkpoint again.`,
      );
    }
  }
}

/** One sequence being read and written; several can share one loaded graph. */
export class Decoder {
  #session;
  #model;
  #cache;
  #logits;
  #ones = new BigInt64Array(0);

  /**
   * @param {InferenceSession} session
   * @param {ModelEntry} model
   */
  constructor(session, model) {
    this.#session = session;
    this.#model = model;
    this.#cache = new KvCache(model);
    this.#logits = makeLogits(model);
  }

  /** Tokens whose keys and values are in the cache. */
  get length() {
    return this.#cache.length;
  }

  /**
   * Forget every token from position `length` on; costs nothing.
   * @param {number} length
   */
  truncate(length) {
    this.#cache.length = Math.min(length, this.#cache.length);
  }

  /**
   * Run the graph on new tokens.
   * @param {readonly number[]} tokens  at least one
   * @returns {Promise<Float32Array>}  logits [V] after the last one: a view, valid until the next call
   * @throws {PromptError} the tokens do not fit into the context.
   * @throws {GenerationError} there is no memory, or onnxruntime failed.
   */
  async append(tokens) {
    const total = this.#cache.length + tokens.length;
    checkLength(total, this.#model);
    this.#cache.reserve(total);
    try {
      await this.#session.run(this.#makeFeeds(tokens, total), this.#makeFetches());
    } catch (error) {
      throw new GenerationError(
        `onnxruntime failed at token ${total} (${firstLine(error)}); ` +
          "check the folder and the free memory with `glm-run doctor`.",
        error,
      );
    }
    this.#cache.length = total;
    return readFloats(this.#logits);
  }

  /**
   * @param {readonly number[]} tokens
   * @param {number} total
   */
  #makeFeeds(tokens, total) {
    if (this.#ones.length < total) this.#ones = new BigInt64Array(this.#cache.capacity).fill(1n);
    /** @type {Record<string, Tensor>} */
    const feeds = {
      input_ids: new Tensor("int64", BigInt64Array.from(tokens, BigInt), [1, tokens.length]),
      attention_mask: new Tensor("int64", this.#ones.subarray(0, total), [1, total]),
    };
    for (const [name, buffer] of this.#cache.buffers) feeds[`past_key_values.${name}`] = buffer;
    return feeds;
  }

  /** What is given as an output is written into. */
  #makeFetches() {
    /** @type {Record<string, Tensor>} */
    const fetches = { logits: this.#logits };
    for (const [name, buffer] of this.#cache.buffers) fetches[`present.${name}`] = buffer;
    return fetches;
  }
}

/**
 * Refuse more tokens than the context holds.
 * @param {number} count
 * @param {ModelEntry} model
 * @throws {PromptError} always says both numbers.
 */
export function checkLength(count, model) {
  if (count > model.contextLength) {
    throw new PromptError(
      `${count} tokens are to be read but the model's context holds ${model.contextLength}; ` +
        "shorten the prompt, or start a new conversation.",
    );
  }
}

/**
 * @param {string} path
 * @param {number} [threads]
 */
async function createSession(path, threads) {
  try {
    return await InferenceSession.create(path, {
      executionProviders: ["cpu"],
      logSeverityLevel: 3,
      // Plans are kept for every shape of the inputs, and each step has another.
      enableMemPattern: false,
      ...(threads === undefined ? {} : { intraOpNumThreads: threads }),
    });
  } catch (error) {
    throw new FolderError(
      `onnxruntime-node refuses model.onnx (${firstLine(error)}); ` +
        "check the folder with `glm-run doctor` and upgrade onnxruntime-node.",
      error,
    );
  }
}

/**
 * @param {ModelEntry} model
 * @returns {[name: string, type: string, shape: (number | null)[]][]}
 */
function listTensors(model) {
  const { cacheDtype, numKvHeads, headDim, vocabSize } = model;
  const cache = [null, numKvHeads, null, headDim];
  /** @type {[string, string, (number | null)[]][]} */
  const tensors = [
    ["input_ids", "int64", [null, null]],
    ["attention_mask", "int64", [null, null]],
    ["logits", logitsType(model), [null, null, vocabSize]],
  ];
  for (let layer = 0; layer < model.numLayers; layer++) {
    for (const part of ["key", "value"]) {
      tensors.push([`past_key_values.${layer}.${part}`, cacheDtype, cache]);
      tensors.push([`present.${layer}.${part}`, cacheDtype, cache]);
    }
  }
  return tensors;
}

/** @param {ModelEntry} model */
function logitsType(model) {
  return model.cacheDtype === "float16" ? "float16" : "float32";
}

/** @param {ModelEntry} model */
function makeLogits(model) {
  const isHalf = logitsType(model) === "float16";
  const values = isHalf ? new Uint16Array(model.vocabSize) : new Float32Array(model.vocabSize);
  return new Tensor(logitsType(model), values, [1, 1, model.vocabSize]);
}

/** @param {Tensor} tensor */
function readFloats(tensor) {
  if (tensor.type === "float32") return /** @type {Float32Array} */ (tensor.data);
  const { buffer, byteOffset, length } = /** @type {Uint16Array} */ (tensor.data);
  return Float32Array.from(new Uint16Array(buffer, byteOffset, length), readHalf);
}

/** @param {number} bits  of IEEE 754 binary16 */
function readHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}
