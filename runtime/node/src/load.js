/**
 * Opens a folder on this computer's disk.
 *
 *     const model = await load("artifacts/glm4-int4");
 *     for await (const piece of model.chat([{ role: "user", content: "Hello" }])) {
 *       process.stdout.write(piece.text);
 *     }
 */

import { DiskFolder } from "./disk_folder.js";
import { GlmRuntimeError } from "./errors.js";
import { openModel } from "./model.js";
import { openGraph } from "./node_graph.js";

/**
 * @typedef {object} LoadOptions
 * @property {number} [threads]  of the CPU; without, onnxruntime takes the physical cores
 * @property {boolean} [verify]  compare every byte with the manifest's hashes, not only the sizes
 */

/**
 * Open an exported folder.
 * @param {string} path  what `glm-export` wrote
 * @param {LoadOptions} [options]
 * @returns {Promise<import("./model.js").Model>}
 * @throws {import("./errors.js").FolderError} the folder is not whole, or not what its manifest promises.
 * @throws {import("./errors.js").FormatVersionError} the folder comes from a newer glm-export.
 */
export async function load(path, options = {}) {
  const { threads, verify = false } = options;
  requireThreads(threads);
  return openModel(new DiskFolder(path), (model) => openGraph(path, model, threads), verify);
}

/** @param {number | undefined} threads */
function requireThreads(threads) {
  if (threads === undefined || (Number.isInteger(threads) && threads >= 1)) return;
  throw new GlmRuntimeError(
    `threads is ${threads} where 1 or more is expected; leave it out to use every core.`,
  );
}
