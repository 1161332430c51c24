/**
 * Keys and values of the tokens so far: one buffer each per layer, read and written in place.
 *
 * The same tensor is given as past and as present, so that the graph copies nothing. But
 * onnxruntime-node 1.30 copies every output that it returns, given ones too: a step costs a copy of
 * the whole capacity, which is therefore kept small. (Its main branch has JavaScript own outputs
 * instead; with a release of it, more may be reserved at once.)
 *
 * Letters: H key/value heads, C capacity, D head size.
 */

import { GenerationError, firstLine } from "./errors.js";
import { listCacheNames } from "./graph.js";

const GRAIN = 64; // tokens; growing copies once in so many steps
const ARRAYS = { float32: Float32Array, float16: Uint16Array, int8: Int8Array };

/** @typedef {import("./graph.js").Tensor} Tensor */

/** Buffers [1, H, C, D] that grow with the tokens, up to the context length. */
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
   * Make room for `length` tokens; those so far are kept.
   * @param {number} length
   * @throws {GenerationError} there is no memory; what was kept is kept.
   */
  reserve(length) {
    if (length <= this.capacity) return;
    const capacity = Math.min(Math.ceil(length / GRAIN) * GRAIN, this.#model.contextLength);
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
   * What a run wrote is here already.
   * @param {unknown} _outputs
   * @param {number} length  tokens it holds now
   */
  accept(_outputs, length) {
    this.length = length;
  }

  /** Give the memory back; the cache is empty then. */
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
        // Zeros: a masked position must not bring a NaN into a product.
        const values = new ARRAYS[cacheDtype](numKvHeads * capacity * headDim);
        this.#copy(name, values, capacity * headDim);
        buffers.set(name, new this.#Tensor(cacheDtype, values, [1, numKvHeads, capacity, headDim]));
      }
    } catch (error) {
      throw new GenerationError(
        `there is no memory for the keys and values of ${capacity} tokens (${firstLine(error)}); ` +
          "shorten the conversation, or free memory.",
        error,
      );
    }
    return buffers;
  }

  /**
   * @param {string} name
   * @param {Float32Array | Uint16Array | Int8Array} values
   * @param {number} stride  values from head to head
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
 * The same bytes as another kind: onnxruntime shows float16 as Float16Array where Node has one.
 * @template {Float32Array | Uint16Array | Int8Array} A
 * @param {{ buffer: ArrayBufferLike, byteOffset: number, length: number }} values
 * @param {A} like
 * @returns {A}
 */
function view(values, like) {
  const View = /** @type {new (buffer: ArrayBufferLike, offset: number, length: number) => A} */ (like.constructor);
  return new View(values.buffer, values.byteOffset, values.length);
}
