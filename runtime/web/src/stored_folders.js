/**
 * Folders kept in the browser (origin private file system), to be opened without a connection.
 *
 *     glm-folders/<first 32 digits of the manifest's SHA-256>/
 *         glm_manifest.json, model.onnx, ...    whole and of the right hash
 *         NAME.part                             a download under way
 *         stored.json                           written last: key, label, size
 */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { FolderError } from "glm-runtime/core";

const ROOT_NAME = "glm-folders";
const RECORD_NAME = "stored.json";

/**
 * @typedef {object} StoredFolder
 * @property {string} id
 * @property {string} key  of the source it came from
 * @property {string} label
 * @property {number} sizeBytes  of all files there are
 * @property {boolean} isWhole  otherwise a download was left half-way
 */

/** Whether this page may keep folders: a private window or plain http may not. */
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
 * The place of one folder's files, made where there is none.
 * @param {string} id
 */
export async function makePlace(id) {
  return (await openRoot()).getDirectoryHandle(id, { create: true });
}

/**
 * A folder that is kept.
 * @param {string} id
 * @throws {FolderError} there is none, or it was deleted.
 */
export async function openStored(id) {
  const stored = (await listStored()).find((one) => one.id === id);
  if (!stored) throw new FolderError(`no folder ${id} is kept in this browser; fetch or pick it again.`);
  const place = await (await openRoot()).getDirectoryHandle(id);
  return new FileFolder(stored.label, await listNames(place), (name) => findFile(place, name));
}

/** @param {Uint8Array} manifest */
export function identify(manifest) {
  return bytesToHex(sha256(manifest)).slice(0, 32);
}

/**
 * Say that a folder is whole.
 * @param {FileSystemDirectoryHandle} place
 * @param {{ key: string, label: string }} source
 */
export async function markWhole(place, { key, label }) {
  await writeFile(place, RECORD_NAME, new TextEncoder().encode(JSON.stringify({ key, label })));
}

/**
 * What workers may write with; TypeScript's library for pages does not know it.
 * @typedef {object} SyncAccess
 * @property {(bytes: Uint8Array, options: { at: number }) => number} write
 * @property {(size: number) => void} truncate
 * @property {() => void} flush
 * @property {() => void} close
 */

/**
 * Write into a file, which nobody else may do meanwhile.
 * @param {FileSystemFileHandle} file
 * @returns {Promise<SyncAccess>}
 */
export function openAccess(file) {
  return /** @type {any} */ (file).createSyncAccessHandle();
}

/**
 * Write a small file at once.
 * @param {FileSystemDirectoryHandle} place
 * @param {string} name
 * @param {Uint8Array} bytes
 */
export async function writeFile(place, name, bytes) {
  const handle = await openAccess(await place.getFileHandle(name, { create: true }));
  try {
    handle.truncate(0);
    handle.write(bytes, { at: 0 });
    handle.flush();
  } finally {
    handle.close();
  }
}

/**
 * @param {FileSystemDirectoryHandle} place
 * @param {string} name
 * @returns {Promise<File | null>}
 */
export async function findFile(place, name) {
  try {
    return await (await place.getFileHandle(name)).getFile();
  } catch (error) {
    if (error instanceof DOMException && ["NotFoundError", "TypeMismatchError"].includes(error.name)) return null;
    throw error;
  }
}

/** A kept folder, or one that was never kept, as the runtime reads it. */
export class FileFolder {
  #names;
  #find;

  /**
   * @param {string} label
   * @param {readonly string[]} names
   * @param {(name: string) => Promise<Blob | null>} find
   */
  constructor(label, names, find) {
    this.label = label;
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
   * @throws {FolderError} it is missing.
   */
  async open(name) {
    const file = await this.#find(name);
    if (file) return file;
    throw new FolderError(`${this.label}/${name} is missing; copy the folder or export again.`);
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

/** @param {FileSystemDirectoryHandle} place */
async function listNames(place) {
  const names = [];
  for await (const name of place.keys()) names.push(name);
  return names;
}

/** @param {ReadableStream<Uint8Array>} stream */
async function hashStream(stream) {
  const digest = sha256.create();
  for await (const chunk of readChunks(stream)) digest.update(chunk);
  return digest.digest();
}

/**
 * Safari's streams are not iterable.
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

async function openRoot() {
  return (await navigator.storage.getDirectory()).getDirectoryHandle(ROOT_NAME, { create: true });
}

/**
 * @param {string} id
 * @param {FileSystemDirectoryHandle} place
 * @returns {Promise<StoredFolder>}
 */
async function describe(id, place) {
  let sizeBytes = 0;
  for await (const handle of place.values()) {
    if (handle.kind === "file") sizeBytes += (await handle.getFile()).size;
  }
  const record = await findFile(place, RECORD_NAME);
  const { key = "", label = "a download left half-way" } = record ? readRecord(await record.text()) : {};
  return { id, key, label, sizeBytes, isWhole: key !== "" };
}

/**
 * A record may be cut off where the browser was killed.
 * @param {string} text
 * @returns {{ key?: string, label?: string }}
 */
function readRecord(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
