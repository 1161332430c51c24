/**
 * Whether a folder can fit into what a page may hold, told from the manifest before anything is fetched.
 *
 * WebAssembly addresses 32 bits: 4 GiB for weights, cache and what is being computed.
 */

import { isObject } from "glm-runtime/core";

import { TooLargeError } from "./errors.js";
import { formatBytes } from "./units.js";

const ADDRESS_SPACE_BYTES = 2 ** 32;
// All else: 0.24 GB for the 1.5 B shape, what the browser itself takes included.
const RESERVE_BYTES = 2 ** 28;

/**
 * @param {Record<string, unknown>} manifest  the JSON object
 * @param {number} dataBytes  of all files
 * @throws {TooLargeError} says both sizes, and where the folder does run.
 */
export function requireFit(manifest, dataBytes) {
  const needed = dataBytes + findLargestUnpacked(manifest) + RESERVE_BYTES;
  if (needed <= ADDRESS_SPACE_BYTES) return;
  throw new TooLargeError(
    `the folder needs about ${formatBytes(needed)} of memory where WebAssembly offers ` +
      `${formatBytes(ADDRESS_SPACE_BYTES)}; run it with Python, C++ or Node, or export a smaller model.`,
  );
}

/**
 * Bytes of the largest quantized matrix as float32: onnxruntime-web 1.30 unpacks one at a time.
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
