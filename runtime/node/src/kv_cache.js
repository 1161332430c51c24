/**
 * A KV cache with one buffer for the keys and one for the values of each layer, updated in place.
 *
 * The same tensor is the graph's past and present, so that the graph copies nothing. But
 * onnxruntime-node 1.30 copies every output that it returns, even one that was written in place, so
 * that each step copies the whole capacity. The capacity therefore grows in small steps. The main
 * branch of onnxruntime does not make this copy; its first release allows larger steps.
 *
 * Axes: H key/value heads, C capacity in tokens, D head size.
 */

import { GenerationError, firstLine } from "./errors.js";
import { listCacheNames } from "./graph.js";

const GROWTH_TOKENS = 64; // the capacity grows by this number of tokens; growing copies the whole cache
const ARRAYS = { float32: Float32Array, float16: Uint16Array, int8: Int8Array };

/** @typedef {import("./graph.js").Tensor} Tensor */

/** Buffers [1, H, C, D], of which C grows up to the context length. */
export class KvCache {
  #model;
  #Tensor;
  length = 0;
  capacity = 0;
  /** @type {Map<string, Tensor>} */ buffers = new Map();

  /**
   * @param {import("./manifest.js").ModelEntry} model
   * @param {import("./graph.js").TensorConstructor} Tensor
   */
  constructor(model, Tensor) {
    this.#model = model;
    this.#Tensor = Tensor;
  }

  /**
   * Make room for `length` tokens. Tokens that are in the cache stay there.
   * @param {number} length
   * @throws {GenerationError} memory is exhausted; the cache is unchanged then.
   */
  reserve(length) {
    if (length <= this.capacity) return;
    const capacity = Math.min(Math.ceil(length / GROWTH_TOKENS) * GROWTH_TOKENS, this.#model.contextLength);
    this.buffers = this.#grow(capacity);
    this.capacity = capacity;
  }

  /** @returns {Record<string, Tensor>} */
  feeds() {
    return this.#name("past_key_values");
  }

  /** @returns {Record<string, Tensor>} */
  fetches() {
    return this.#name("present");
  }

  /**
   * Note the new length after a run; the run has already written into the buffers.
   * @param {unknown} _outputs
   * @param {number} length  number of tokens in the cache
   */
  accept(_outputs, length) {
    this.length = length;
  }

  /** Empty the cache, and free its memory. */
  release() {
    this.buffers = new Map();
    this.length = this.capacity = 0;
  }

  /** @param {string} prefix */
  #name(prefix) {
    return Object.fromEntries([...this.buffers].map(([name, buffer]) => [`${prefix}.${name}`, buffer]));
  }

  /** @param {number} capacity */
  #grow(capacity) {
    const { numKvHeads, headDim, cacheDtype } = this.#model;
    /** @type {Map<string, Tensor>} */
    const buffers = new Map();
    try {
      for (const name of listCacheNames(this.#model)) {
        // Unused positions must be zero: a masked NaN would still turn a product into NaN.
        const values = new ARRAYS[cacheDtype](numKvHeads * capacity * headDim);
        this.#copy(name, values, capacity * headDim);
        buffers.set(name, new this.#Tensor(cacheDtype, values, [1, numKvHeads, capacity, headDim]));
      }
    } catch (error) {
      throw new GenerationError(
        `there is not enough memory for the KV cache of ${capacity} tokens (${firstLine(error)}); ` +
          "shorten the conversation, or free memory.",
        error,
      );
    }
    return buffers;
  }

  /**
   * @param {string} name
   * @param {Float32Array | Uint16Array | Int8Array} values
   * @param {number} stride  number of values between the starts of two heads
   */
  #copy(name, values, stride) {
    const tensor = this.buffers.get(name);
    if (!tensor) return;
    const old = view(/** @type {Float32Array} */ (tensor.data), values);
    const { numKvHeads, headDim } = this.#model;
    for (let head = 0; head < numKvHeads; head++) {
      const start = head * this.capacity * headDim;
      values.set(old.subarray(start, start + this.length * headDim), head * stride);
    }
  }
}

/**
 * View the same bytes as another array type: onnxruntime returns float16 as Float16Array where Node has that class.
 * @template {Float32Array | Uint16Array | Int8Array} A
 * @param {{ buffer: ArrayBufferLike, byteOffset: number, length: number }} values
 * @param {A} like
 * @returns {A}
 */
function view(values, like) {
  const View = /** @type {new (buffer: ArrayBufferLike, offset: number, length: number) => A} */ (like.constructor);
  return new View(values.buffer, values.byteOffset, values.length);
}
