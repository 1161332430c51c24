/**
 * A loaded graph, and what its host's onnxruntime wants: which class makes tensors, where caches lie.
 *
 * onnxruntime-node and onnxruntime-web share their interface, onnxruntime-common, which is all that
 * is used of either.
 */

import { FolderError } from "./errors.js";

/** @typedef {import("onnxruntime-common").InferenceSession} InferenceSession */
/** @typedef {import("onnxruntime-common").Tensor} Tensor */
/** @typedef {import("onnxruntime-common").TensorConstructor} TensorConstructor */
/** @typedef {import("./manifest.js").ModelEntry} ModelEntry */

/**
 * What differs between hosts.
 * @typedef {object} GraphTraits
 * @property {boolean} isInPlace  whether an output that is given is written into
 * @property {number} chunkTokens  a prompt is read in portions of so many, which bounds memory
 */

/** Runs the graph of one folder. */
export class Graph {
  #session;

  /**
   * @param {InferenceSession} session
   * @param {TensorConstructor} Tensor  of the same onnxruntime
   * @param {GraphTraits} traits
   */
  constructor(session, Tensor, { isInPlace, chunkTokens }) {
    this.#session = session;
    this.Tensor = Tensor;
    this.isInPlace = isInPlace;
    this.chunkTokens = chunkTokens;
  }

  /**
   * @param {Record<string, Tensor>} feeds
   * @param {Record<string, Tensor>} [fetches]  outputs to be written into
   * @returns {Promise<Record<string, Tensor>>}
   */
  run(feeds, fetches) {
    return fetches ? this.#session.run(feeds, fetches) : this.#session.run(feeds);
  }

  release() {
    return this.#session.release();
  }
}

/**
 * Compare a graph's tensors with what the manifest says.
 * @param {InferenceSession} session
 * @param {ModelEntry} model
 * @throws {FolderError} a tensor is not as promised.
 */
export function checkTensors(session, model) {
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

/**
 * The names of the cache's tensors, without `past_key_values.` or `present.` before them.
 * @param {ModelEntry} model
 */
export function listCacheNames(model) {
  const layers = Array.from({ length: model.numLayers }, (_, layer) => layer);
  return layers.flatMap((layer) => [`${layer}.key`, `${layer}.value`]);
}

/** @param {ModelEntry} model */
export function logitsType(model) {
  return model.cacheDtype === "float16" ? "float16" : "float32";
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
  for (const name of listCacheNames(model)) {
    tensors.push([`past_key_values.${name}`, cacheDtype, cache]);
    tensors.push([`present.${name}`, cacheDtype, cache]);
  }
  return tensors;
}
