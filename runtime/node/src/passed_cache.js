/**
 * A KV cache for hosts that cannot write outputs in place: the `present` tensors of each run become the
 * `past` tensors of the next run. On a GPU the tensors stay in its memory.
 */

import { listCacheNames } from "./graph.js";

const ARRAYS = { float32: Float32Array, float16: Uint16Array, int8: Int8Array };

/** The tensors [1, H, P, D] of the last run. Axes: H key/value heads, P positions, D head size. */
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

  /** Does nothing: onnxruntime allocates its outputs. */
  reserve() {}

  /** @returns {Record<string, import("./graph.js").Tensor>} */
  feeds() {
    // Positions from `length` on belong to tokens that were removed; the attention mask hides them.
    return Object.fromEntries([...this.#tensors].map(([name, tensor]) => [`past_key_values.${name}`, tensor]));
  }

  /** @returns {Record<string, import("./graph.js").Tensor>} */
  fetches() {
    return {};
  }

  /**
   * Take over the outputs of a run.
   * @param {Record<string, import("./graph.js").Tensor>} outputs
   * @param {number} length  number of tokens in the cache
   */
  accept(outputs, length) {
    for (const [name, old] of this.#tensors) {
      this.#tensors.set(name, outputs[`present.${name}`]);
      old.dispose();
    }
    this.length = length;
  }

  /** Empty the cache, and free its memory. */
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
