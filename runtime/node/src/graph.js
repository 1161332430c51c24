/**
 * A loaded graph, together with the properties in which the hosts' versions of onnxruntime differ.
 *
 * onnxruntime-node and onnxruntime-web share the interface onnxruntime-common; nothing else of them is used here.
 */

import { FolderError } from "./errors.js";

/** @typedef {import("onnxruntime-common").InferenceSession} InferenceSession */
/** @typedef {import("onnxruntime-common").Tensor} Tensor */
/** @typedef {import("onnxruntime-common").TensorConstructor} TensorConstructor */
/** @typedef {import("./manifest.js").ModelEntry} ModelEntry */

/**
 * Properties that differ between hosts.
 * @typedef {object} GraphTraits
 * @property {boolean} isInPlace  whether onnxruntime can write outputs into tensors that the caller passes
 * @property {number} chunkTokens  number of tokens in one chunk of the chunked prefill
 */

/** Runs the graph of one folder. */
export class Graph {
  #session;

  /**
   * @param {InferenceSession} session
   * @param {TensorConstructor} Tensor  the tensor class of the same onnxruntime
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
   * @param {Record<string, Tensor>} [fetches]  tensors that outputs are written into
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
 * Compare the graph's inputs and outputs with the manifest.
 * @param {InferenceSession} session
 * @param {ModelEntry} model
 * @throws {FolderError} a tensor is missing, or has another type or shape.
 */
export function checkTensors(session, model) {
  const found = new Map([...session.inputMetadata, ...session.outputMetadata].map((one) => [one.name, one]));
  if (model.numLayers > found.size) { // otherwise a wrong number could fill the memory
    throw new FolderError(
      `model.onnx has ${found.size} inputs and outputs where the manifest requires ${model.numLayers} layers; ` +
        "export the checkpoint again.",
    );
  }
  for (const [name, type, shape] of listTensors(model)) {
    const tensor = found.get(name);
    if (!tensor?.isTensor) {
      throw new FolderError(
        `model.onnx has no tensor ${JSON.stringify(name)}, which the manifest requires; ` +
          "export the checkpoint again.",
      );
    }
    const fits = tensor.shape.length === shape.length && shape.every((size, axis) => {
      return size === null || typeof tensor.shape[axis] !== "number" || tensor.shape[axis] === size;
    });
    if (tensor.type !== type || !fits) {
      throw new FolderError(
        `model.onnx: ${name} is ${tensor.type} ${JSON.stringify(tensor.shape)} where the manifest requires ` +
          `${type} ${JSON.stringify(shape)}; export the checkpoint again.`,
      );
    }
  }
}

/**
 * The names of the KV cache's tensors, without their prefix `past_key_values.` or `present.`.
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
