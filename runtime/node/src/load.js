/**
 * Opens an exported folder on this computer's disk.
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

const MAX_THREADS = 1024; // more of them freeze a machine
const OPTIONS = ["threads", "verify"];

/**
 * @typedef {object} LoadOptions
 * @property {number} [threads]  number of CPU threads; by default onnxruntime uses one per physical core
 * @property {boolean} [verify]  compare the SHA-256 of every file with the manifest; by default only sizes are compared
 */

/**
 * Open an exported folder.
 * @param {string} path  the exported folder
 * @param {LoadOptions} [options]
 * @returns {Promise<import("./model.js").Model>}
 * @throws {import("./errors.js").FolderError} a file is missing, or does not match the manifest.
 * @throws {import("./errors.js").FormatVersionError} a newer version of glm-export wrote the folder.
 * @throws {GlmRuntimeError} an option is unknown, or outside its range.
 */
export async function load(path, options = {}) {
  const unknown = Object.keys(options).find((name) => !OPTIONS.includes(name));
  if (unknown !== undefined) {
    throw new GlmRuntimeError(
      `load() has no option ${JSON.stringify(unknown)}, only ${OPTIONS.join(" and ")}; leave it out.`,
    );
  }
  const { threads, verify = false } = options;
  requireThreads(threads);
  return openModel(new DiskFolder(path), (model) => openGraph(path, model, threads), verify);
}

/** @param {number | undefined} threads */
function requireThreads(threads) {
  if (threads === undefined || (Number.isInteger(threads) && threads >= 1 && threads <= MAX_THREADS)) return;
  throw new GlmRuntimeError(
    `threads is ${threads} where 1 to ${MAX_THREADS} is expected; leave it out to use every physical core.`,
  );
}
