/**
 * Folders in the browser's storage (origin private file system), which work without a connection.
 *
 *     glm-folders/<first 32 digits of the manifest's SHA-256>/
 *         glm_manifest.json, model.onnx, ...    complete files with the right SHA-256
 *         NAME.part                             a file that is being downloaded
 *         stored.json                           written last: the keys of the sources, and the label
 */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { FolderError } from "glm-runtime/core";

const ROOT_NAME = "glm-folders";
const RECORD_NAME = "stored.json";
/** The suffix of incomplete files. */
export const PART = ".part";

/**
 * @typedef {object} StoredFolder
 * @property {string} id
 * @property {readonly string[]} keys  keys of the sources that it came from
 * @property {string} label
 * @property {number} sizeBytes  size of all stored files
 * @property {boolean} isWhole  false if the download is incomplete
 */

/** Whether this page may store folders. Private windows and plain http pages may not. */
export async function canStore() {
  try {
    await openRoot();
    return true;
  } catch {
    return false;
  }
}

/** @returns {Promise<StoredFolder[]>} */
export async function listStored() {
  if (!(await canStore())) return [];
  const root = await openRoot();
  const found = [];
  for await (const [id, handle] of root.entries()) {
    if (handle.kind === "directory") found.push(await describe(id, handle));
  }
  return found;
}

/** @param {string} id */
export async function deleteStored(id) {
  const root = await openRoot();
  await root.removeEntry(id, { recursive: true });
}

/**
 * Delete the directory of a folder if it is empty.
 * @param {string} id
 */
export async function deleteEmpty(id) {
  const root = await openRoot();
  await root.removeEntry(id).catch(() => {}); // the browser refuses this for a directory with files
}

/**
 * Whether this module uses a name for its own files.
 * @param {string} name
 */
export function isReserved(name) {
  return name === RECORD_NAME || name.endsWith(PART);
}

/**
 * The directory of one folder; it is made if it does not exist.
 * @param {string} id
 */
export async function makeDirectory(id) {
  return (await openRoot()).getDirectoryHandle(id, { create: true });
}

/**
 * Open a stored folder.
 * @param {string} id
 * @throws {FolderError} the folder is not stored, or it was deleted.
 */
export async function openStored(id) {
  const stored = (await listStored()).find((one) => one.id === id);
  if (!stored) throw new FolderError(`the folder ${id} is not saved in this browser; download or pick it again.`);
  const directory = await findDirectory(id);
  return new FileFolder(stored.label, await listNames(directory), (name) => findFile(directory, name), id);
}

/** @param {Uint8Array} manifest */
export function identify(manifest) {
  return bytesToHex(sha256(manifest)).slice(0, 32);
}

/**
 * Note that a folder is complete, and add a source to its record.
 * @param {FileSystemDirectoryHandle} directory
 * @param {{ key: string, label: string }} source
 */
export async function markWhole(directory, { key, label }) {
  const { keys } = await readRecord(directory);
  await writeRecord(directory, { keys: [...new Set([...keys, key])], label });
}

/**
 * Remove a source from a folder's record. A folder without sources is deleted.
 * @param {StoredFolder} stored
 * @param {string} key
 */
export async function forgetSource({ id, keys, label }, key) {
  const others = keys.filter((one) => one !== key);
  if (!others.length) return deleteStored(id);
  return writeRecord(await findDirectory(id), { keys: others, label });
}

/**
 * Delete damaged files. The folder is incomplete then, and only these files are fetched again.
 * @param {string} id
 * @param {readonly string[]} names
 */
export async function discardFiles(id, names) {
  const directory = await findDirectory(id);
  const there = await listNames(directory);
  for (const name of [RECORD_NAME, ...names]) if (there.includes(name)) await directory.removeEntry(name);
}

/**
 * @param {FileSystemDirectoryHandle} directory
 * @param {{ keys: readonly string[], label: string }} record
 */
function writeRecord(directory, record) {
  return writeFile(directory, RECORD_NAME, new TextEncoder().encode(JSON.stringify(record)));
}

/**
 * A file handle that only workers have; TypeScript's library for pages does not declare it.
 * @typedef {object} SyncAccess
 * @property {(bytes: Uint8Array, options: { at: number }) => number} write
 * @property {(size: number) => void} truncate
 * @property {() => void} flush
 * @property {() => void} close
 */

/**
 * Open a file for writing. Nobody else can write to it until it is closed.
 * @param {FileSystemFileHandle} file
 * @returns {Promise<SyncAccess>}
 */
export function openAccess(file) {
  return /** @type {any} */ (file).createSyncAccessHandle();
}

/**
 * Write a small file atomically, unless it already has this content.
 * @param {FileSystemDirectoryHandle} directory
 * @param {string} name
 * @param {Uint8Array} bytes
 * @throws {DOMException} the storage is full, or another tab is writing the file.
 */
export async function writeFile(directory, name, bytes) {
  const old = await findFile(directory, name);
  if (old?.size === bytes.length && isEqual(new Uint8Array(await old.arrayBuffer()), bytes)) return;
  const file = await directory.getFileHandle(`${name}${PART}`, { create: true });
  const handle = await openAccess(file);
  try {
    handle.truncate(0);
    writeAt(handle, bytes, 0);
    handle.flush();
  } finally {
    handle.close();
  }
  await /** @type {any} */ (file).move(name);
}

/**
 * @param {SyncAccess} access
 * @param {Uint8Array} bytes
 * @param {number} at
 */
export function writeAt(access, bytes, at) {
  if (access.write(bytes, { at }) !== bytes.length) throw new DOMException("the disk is full", "QuotaExceededError");
}

/**
 * @param {Uint8Array} left
 * @param {Uint8Array} right  of the same length
 */
function isEqual(left, right) {
  return left.every((byte, index) => byte === right[index]);
}

/**
 * @param {FileSystemDirectoryHandle} directory
 * @param {string} name
 * @returns {Promise<File | null>}
 */
export async function findFile(directory, name) {
  try {
    return await (await directory.getFileHandle(name)).getFile();
  } catch (error) {
    if (error instanceof DOMException && ["NotFoundError", "TypeMismatchError"].includes(error.name)) return null;
    throw error;
  }
}

/** An exported folder made of Blobs, in the browser's storage or in memory. */
export class FileFolder {
  #names;
  #find;

  /**
   * @param {string} label
   * @param {readonly string[]} names
   * @param {(name: string) => Promise<Blob | null>} find
   * @param {string} [id]  the id of a stored folder
   */
  constructor(label, names, find, id = "") {
    this.label = label;
    this.id = id;
    this.#names = names;
    this.#find = find;
  }

  async listNames() {
    return this.#names;
  }

  /**
   * @param {string} name
   * @returns {Promise<import("glm-runtime/core").Found>}
   */
  async find(name) {
    const file = await this.#find(name);
    return file ? { sizeBytes: file.size } : { problem: "is missing" };
  }

  /**
   * @param {string} name
   * @throws {FolderError} the file is missing.
   */
  async open(name) {
    const file = await this.#find(name);
    if (file) return file;
    throw new FolderError(`${this.label}/${name} is missing; copy the folder again, or export again.`);
  }

  /** @param {string} name */
  async readBytes(name) {
    const file = await this.#find(name);
    return file && new Uint8Array(await file.arrayBuffer());
  }

  /** @param {string} name */
  async hash(name) {
    const file = await this.#find(name);
    return file ? bytesToHex(await hashStream(file.stream())) : "";
  }
}

/** @param {FileSystemDirectoryHandle} directory */
async function listNames(directory) {
  const names = [];
  for await (const name of directory.keys()) names.push(name);
  return names;
}

/** @param {ReadableStream<Uint8Array>} stream */
export async function hashStream(stream) {
  const digest = sha256.create();
  for await (const chunk of readChunks(stream)) digest.update(chunk);
  return digest.digest();
}

/**
 * Iterate over a stream. Safari's streams are not iterable themselves.
 * @param {ReadableStream<Uint8Array>} stream
 */
export async function* readChunks(stream) {
  const reader = stream.getReader();
  try {
    for (let step = await reader.read(); !step.done; step = await reader.read()) yield step.value;
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** @param {string} id */
async function findDirectory(id) {
  return (await openRoot()).getDirectoryHandle(id);
}

async function openRoot() {
  return (await navigator.storage.getDirectory()).getDirectoryHandle(ROOT_NAME, { create: true });
}

/**
 * @param {string} id
 * @param {FileSystemDirectoryHandle} directory
 * @returns {Promise<StoredFolder>}
 */
async function describe(id, directory) {
  let sizeBytes = 0;
  for await (const handle of directory.values()) {
    if (handle.kind === "file") sizeBytes += (await handle.getFile()).size;
  }
  const { keys, label = "incomplete download" } = await readRecord(directory);
  return { id, keys, label, sizeBytes, isWhole: keys.length > 0 };
}

/**
 * Read a folder's record. An incomplete download has no keys.
 * @param {FileSystemDirectoryHandle} directory
 * @returns {Promise<{ keys: string[], label?: string }>}
 */
async function readRecord(directory) {
  const file = await findFile(directory, RECORD_NAME);
  try {
    const { keys, label } = JSON.parse(file ? await file.text() : "{}");
    return Array.isArray(keys) ? { keys, label } : { keys: [] };
  } catch {
    return { keys: [] };
  }
}
