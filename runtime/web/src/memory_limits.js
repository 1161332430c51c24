/**
 * Checks by the manifest whether a model fits into a page's memory, before anything is fetched.
 *
 * WebAssembly has 32-bit addresses: 4 GiB for the weights, the KV cache and the activations.
 */

import { isObject } from "glm-runtime/core";

import { TooLargeError } from "./errors.js";
import { formatBytes } from "./units.js";

const ADDRESS_SPACE_BYTES = 2 ** 32;
// For everything else; a 1.5 B model took 0.24 GB, including the browser itself.
const RESERVE_BYTES = 2 ** 28;

/**
 * @param {Record<string, unknown>} manifest  the parsed JSON
 * @param {number} dataBytes  size of all files
 * @throws {TooLargeError} the model needs more than 4 GiB.
 */
export function requireFit(manifest, dataBytes) {
  const needed = dataBytes + findLargestUnpacked(manifest) + RESERVE_BYTES;
  if (needed <= ADDRESS_SPACE_BYTES) return;
  throw new TooLargeError(
    `the model needs about ${formatBytes(needed)} of memory where WebAssembly offers ` +
      `${formatBytes(ADDRESS_SPACE_BYTES)}; run it with Python, C++ or Node, or export a smaller model.`,
  );
}

/**
 * Size of the largest quantized matrix in float32. onnxruntime-web 1.30 dequantizes one matrix at a time.
 * @param {Record<string, unknown>} manifest
 */
function findLargestUnpacked({ tensors }) {
  let largest = 0;
  for (const tensor of Array.isArray(tensors) ? tensors : []) {
    if (!isObject(tensor) || !Array.isArray(tensor.shape) || !String(tensor.scheme).startsWith("int")) continue;
    const bytes = 4 * tensor.shape.reduce((product, size) => product * Number(size), 1);
    if (bytes > largest) largest = bytes;
  }
  return largest;
}
