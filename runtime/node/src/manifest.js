/**
 * Reads `glm_manifest.json`, and compares the files of a folder with it.
 *
 * Only the model's shape and the list of files are read. The other keys are for the exporter.
 */

import { FolderError, FormatVersionError } from "./errors.js";
import { isObject, readObject, showValue } from "./text_files.js";

export const MANIFEST_NAME = "glm_manifest.json";
const FORMAT_NAME = "glm-export-folder";
const FORMAT_VERSION = 1;

/**
 * The shape of a model. Ids from `tokenizerVocabSize` on are padding and are never chosen.
 * @typedef {object} ModelEntry
 * @property {number} numLayers
 * @property {number} numKvHeads
 * @property {number} headDim
 * @property {number} vocabSize  size of the logits
 * @property {number} tokenizerVocabSize
 * @property {number} contextLength
 * @property {"float32" | "float16" | "int8"} cacheDtype
 * @property {readonly number[]} eosTokenIds  each of them ends an answer
 * @property {string} oldestOnnxruntime  the oldest version of ONNX Runtime that runs the graph
 */

/**
 * @typedef {object} Manifest
 * @property {ModelEntry} model
 * @property {ReadonlyMap<string, FileEntry>} files  every file except the manifest
 */

/** @typedef {{ sizeBytes: number, sha256: string }} FileEntry */
/** @typedef {import("./text_files.js").Folder} Folder */

/**
 * Read the manifest of an exported folder.
 * @param {Folder} folder
 * @returns {Promise<Manifest>}
 * @throws {FolderError} the folder or its manifest is missing, or the manifest is invalid.
 * @throws {FormatVersionError} a newer version of glm-export wrote the folder.
 */
export async function readManifest(folder) {
  requireManifest(folder.label, await folder.listNames());
  const content = await readObject(folder, MANIFEST_NAME);
  if (content.format !== FORMAT_NAME) {
    throw new FolderError(
      `${MANIFEST_NAME} does not contain "format": "${FORMAT_NAME}", so another tool wrote it; ` +
        "export the checkpoint with glm-export.",
    );
  }
  checkFormatVersion(content.format_version);
  const model = { ...readModel(content.model), oldestOnnxruntime: readOldest(content.oldest_onnxruntime) };
  return { model, files: readFiles(content.files) };
}

/**
 * Refuse a folder that needs a newer ONNX Runtime.
 * @param {ModelEntry} model
 * @param {string} name  the package
 * @param {string | undefined} version  its version
 * @throws {FolderError} the message names both versions.
 */
export function requireVersion(model, name, version) {
  const [major, minor] = splitVersion(version ?? "");
  const [oldestMajor, oldestMinor] = splitVersion(model.oldestOnnxruntime);
  if (!version || major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) return;
  throw new FolderError(
    `${name} is ${version}, but this folder needs ONNX Runtime ${model.oldestOnnxruntime} or later; upgrade ${name}.`,
  );
}

/**
 * Check that the files of a folder match its manifest.
 * @param {Folder} folder
 * @param {Manifest} manifest
 * @param {boolean} isFull  compare the SHA-256 of every file, not only its size
 * @returns {Promise<void>}
 * @throws {FolderError} the message names every file that is missing or different.
 */
export async function requireWhole(folder, manifest, isFull) {
  const problems = [];
  for (const [name, entry] of manifest.files) {
    const problem = await findProblem(folder, name, entry, isFull);
    if (problem) problems.push(`${name} ${problem}`);
  }
  if (problems.length) {
    throw new FolderError(`${folder.label} is damaged: ${problems.join("; ")}; copy the folder again, or export again.`);
  }
}

/**
 * @param {string} label
 * @param {readonly string[]} names
 */
function requireManifest(label, names) {
  if (names.includes(MANIFEST_NAME)) return;
  if (names.some((name) => name.endsWith(".safetensors"))) {
    throw new FolderError(
      `${label} is a checkpoint, not an exported folder; export it first with \`glm-export ${label} -o DIR\`.`,
    );
  }
  throw new FolderError(`${label} has no ${MANIFEST_NAME}; pass a folder that glm-export wrote.`);
}

/** @param {unknown} version */
function checkFormatVersion(version) {
  if (typeof version !== "number" || !Number.isInteger(version) || version < 1) {
    throw new FolderError(
      `${MANIFEST_NAME} has format_version ${showValue(version)} where a positive integer is ` +
        "expected; export the folder again.",
    );
  }
  if (version > FORMAT_VERSION) {
    throw new FormatVersionError(
      `${MANIFEST_NAME} has format_version ${version} but this package reads up to ${FORMAT_VERSION}; ` +
        "upgrade the package.",
    );
  }
}

/** @param {string} version */
function splitVersion(version) {
  return version.split(".").map(Number);
}

/** @param {unknown} value */
function readOldest(value = "0.0") {
  const isVersion = typeof value === "string" && /^\d{1,4}\.\d{1,4}$/.test(value);
  require(isVersion, `oldest_onnxruntime is ${JSON.stringify(value)}`, "a version such as 1.24");
  return /** @type {string} */ (value);
}

/**
 * @param {unknown} value
 * @returns {Omit<ModelEntry, "oldestOnnxruntime">}
 */
function readModel(value) {
  const entry = isObject(value) ? value : {};
  /** @param {string} key */
  const count = (key) => {
    const number = entry[key];
    require(isWhole(number) && number > 0, `model.${key} is ${showValue(number)}`, "a whole number of 1 or more");
    require(Number(number) < 2 ** 31, `model.${key} is ${number}`, "less than 2^31");
    return /** @type {number} */ (number);
  };
  const vocabSize = count("vocab_size");
  const tokenizerVocabSize = count("tokenizer_vocab_size");
  const found = `tokenizer_vocab_size is ${tokenizerVocabSize}`;
  require(tokenizerVocabSize <= vocabSize, found, `at most vocab_size = ${vocabSize}`);
  const dtype = entry.cache_dtype;
  const isKnown = dtype === "float32" || dtype === "float16" || dtype === "int8";
  require(isKnown, `cache_dtype is ${JSON.stringify(dtype)}`, "float32, float16 or int8");
  return {
    numLayers: count("num_layers"),
    numKvHeads: count("num_kv_heads"),
    headDim: count("head_dim"),
    vocabSize,
    tokenizerVocabSize,
    contextLength: count("context_length"),
    cacheDtype: /** @type {ModelEntry["cacheDtype"]} */ (dtype),
    eosTokenIds: readIds(entry.eos_token_ids, vocabSize),
  };
}

/**
 * @param {unknown} value
 * @param {number} vocabSize
 */
function readIds(value, vocabSize) {
  const ids = Array.isArray(value) ? value : [value];
  for (const id of ids) {
    const found = `eos_token_ids contains ${showValue(id)}`;
    require(isWhole(id) && id >= 0 && id < vocabSize, found, `ids below ${vocabSize}`);
  }
  return /** @type {number[]} */ (ids);
}

/**
 * @param {unknown} value
 * @returns {Map<string, FileEntry>}
 */
function readFiles(value) {
  require(isObject(value), `files is ${JSON.stringify(value)}`, "an object");
  /** @type {Map<string, FileEntry>} */
  const files = new Map();
  for (const [name, entry] of Object.entries(/** @type {object} */ (value))) {
    const isPlain = !/[/\\\0:]/.test(name) && !["", ".", "..", MANIFEST_NAME].includes(name);
    require(isPlain, `files contains the name ${JSON.stringify(name)}`, "a file name without a folder");
    const size = entry?.size_bytes;
    require(isWhole(size) && size >= 0, `size_bytes is ${showValue(size)}`, "a whole number of 0 or more");
    const hash = entry?.sha256;
    const isHash = typeof hash === "string" && /^[0-9a-f]{64}$/.test(hash);
    require(isHash, `sha256 is ${JSON.stringify(hash)}`, "64 lower-case hexadecimal digits");
    files.set(name, { sizeBytes: size, sha256: hash });
  }
  return files;
}

/**
 * @param {Folder} folder
 * @param {string} name
 * @param {FileEntry} entry
 * @param {boolean} isFull
 */
async function findProblem(folder, name, entry, isFull) {
  const found = await folder.find(name);
  if (found.problem !== undefined) return found.problem;
  if (found.sizeBytes !== entry.sizeBytes) {
    return `has ${found.sizeBytes} bytes where the manifest says ${entry.sizeBytes}`;
  }
  if (isFull && (await folder.hash(name)) !== entry.sha256) {
    return "was changed: its SHA-256 differs from the manifest";
  }
  return null;
}

/**
 * @param {unknown} value
 * @returns {value is number}
 */
function isWhole(value) {
  return typeof value === "number" && Number.isSafeInteger(value);
}

/**
 * @param {boolean} isMet
 * @param {string} found
 * @param {string} expected
 */
function require(isMet, found, expected) {
  if (!isMet) {
    throw new FolderError(
      `${MANIFEST_NAME}: ${found} where ${expected} is expected; export the folder again.`,
    );
  }
}
