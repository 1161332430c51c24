/**
 * Keys and values of the tokens so far, where outputs cannot be written in place: each run's `present`
 * is the next one's `past`, as onnxruntime gave it. On a GPU they stay there.
 */

import { listCacheNames } from "./graph.js";

const ARRAYS = { float32: Float32Array, float16: Uint16Array, int8: Int8Array };

/** Tensors [1, H, P, D] of the last run; H key/value heads, P positions, D head size. */
export class PassedCache {
  #model;
  #Tensor;
  length = 0;
  /** @type {Map<string, import("./graph.js").Tensor>} */ #tensors = new Map();

  /**
   * @param {import("./manifest.js").ModelEntry} model
   * @param {import("./graph.js").TensorConstructor} Tensor
   */
  constructor(model, Tensor) {
    this.#model = model;
    this.#Tensor = Tensor;
    this.#empty();
  }

  /** Nothing to do: onnxruntime makes room. */
  reserve() {}

  /** @returns {Record<string, import("./graph.js").Tensor>} */
  feeds() {
    // Positions past `length` are left from tokens that were taken back; the mask hides them.
    return Object.fromEntries([...this.#tensors].map(([name, tensor]) => [`past_key_values.${name}`, tensor]));
  }

  /** @returns {Record<string, import("./graph.js").Tensor>} */
  fetches() {
    return {};
  }

  /**
   * Take over what a run gave.
   * @param {Record<string, import("./graph.js").Tensor>} outputs
   * @param {number} length  tokens they hold
   */
  accept(outputs, length) {
    for (const [name, old] of this.#tensors) {
      this.#tensors.set(name, outputs[`present.${name}`]);
      old.dispose();
    }
    this.length = length;
  }

  /** Give the memory back; the cache is empty then. */
  release() {
    for (const tensor of this.#tensors.values()) tensor.dispose();
    this.#empty();
  }

  #empty() {
    const { numKvHeads, headDim, cacheDtype } = this.#model;
    this.length = 0;
    for (const name of listCacheNames(this.#model)) {
      const none = new ARRAYS[cacheDtype](0);
      this.#tensors.set(name, new this.#Tensor(cacheDtype, none, [1, numKvHeads, 0, headDim]));
    }
  }
}
