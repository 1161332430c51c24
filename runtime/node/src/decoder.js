/**
 * Runs the graph on the tokens of one sequence, keeps its KV cache, and returns logits.
 *
 * This file knows the graph's tensor names and nothing about text or sampling. Read `graph.js` first.
 */

import { GenerationError, PromptError, firstLine } from "./errors.js";
import { logitsType } from "./graph.js";
import { KvCache } from "./kv_cache.js";
import { PassedCache } from "./passed_cache.js";

/** @typedef {import("./graph.js").Graph} Graph */
/** @typedef {import("./graph.js").Tensor} Tensor */
/** @typedef {import("./manifest.js").ModelEntry} ModelEntry */

/** Decodes one sequence. Several decoders can share one loaded graph. */
export class Decoder {
  #graph;
  #model;
  #cache;
  #logits;
  #ones = new BigInt64Array(0);

  /**
   * @param {Graph} graph
   * @param {ModelEntry} model
   */
  constructor(graph, model) {
    const { Tensor, isInPlace } = graph;
    this.#graph = graph;
    this.#model = model;
    this.#cache = isInPlace ? new KvCache(model, Tensor) : new PassedCache(model, Tensor);
    this.#logits = isInPlace ? makeLogits(model, Tensor) : null;
  }

  /** Number of tokens in the KV cache. */
  get length() {
    return this.#cache.length;
  }

  /**
   * Remove every token from position `length` on. This copies nothing.
   * @param {number} length
   */
  truncate(length) {
    this.#cache.length = Math.min(length, this.#cache.length);
  }

  /** Remove every token, and free the memory of the KV cache. */
  release() {
    this.#cache.release();
  }

  /**
   * Run the graph on new tokens.
   * @param {readonly number[]} tokens  one or more
   * @returns {Promise<Float32Array>}  logits [V] after the last token; a view that is valid until the next call
   * @throws {PromptError} the tokens do not fit into the context.
   * @throws {GenerationError} memory is exhausted, or onnxruntime failed.
   */
  async append(tokens) {
    const total = this.#cache.length + tokens.length;
    checkLength(total, this.#model);
    this.#cache.reserve(total);
    let outputs;
    try {
      outputs = await this.#graph.run(this.#makeFeeds(tokens, total), this.#makeFetches());
    } catch (error) {
      throw new GenerationError(
        `onnxruntime failed at token ${total} (${firstLine(error)}); ` +
          "check the folder and the free memory with `glm-run doctor`.",
        error,
      );
    }
    this.#cache.accept(outputs, total);
    return readFloats(this.#logits ?? outputs.logits);
  }

  /**
   * @param {readonly number[]} tokens
   * @param {number} total
   */
  #makeFeeds(tokens, total) {
    const { Tensor } = this.#graph;
    if (this.#ones.length < total) {
      this.#ones = new BigInt64Array(Math.min(2 * total, this.#model.contextLength)).fill(1n);
    }
    return {
      input_ids: new Tensor("int64", BigInt64Array.from(tokens, BigInt), [1, tokens.length]),
      attention_mask: new Tensor("int64", this.#ones.subarray(0, total), [1, total]),
      ...this.#cache.feeds(),
    };
  }

  /** The tensors that onnxruntime writes its outputs into. */
  #makeFetches() {
    return this.#logits ? { logits: this.#logits, ...this.#cache.fetches() } : undefined;
  }
}

/**
 * Check that a number of tokens fits into the context.
 * @param {number} count
 * @param {ModelEntry} model
 * @throws {PromptError} the count is larger than the context length.
 */
export function checkLength(count, model) {
  if (count > model.contextLength) {
    throw new PromptError(
      `the sequence has ${count} tokens but the model's context length is ${model.contextLength}; ` +
        "shorten the prompt, or start a new conversation.",
    );
  }
}

/**
 * @param {ModelEntry} model
 * @param {import("./graph.js").TensorConstructor} Tensor
 */
function makeLogits(model, Tensor) {
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

/** @param {number} bits  an IEEE 754 binary16 number */
function readHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}
