/**
 * Folders kept in the browser (origin private file system), to be opened without a connection.
 *
 *     glm-folders/<first 32 digits of the manifest's SHA-256>/
 *         glm_manifest.json, model.onnx, ...    whole and of the right hash
 *         NAME.part                             a download under way
 *         stored.json                           written last: keys, label
 */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { FolderError } from "glm-runtime/core";

const ROOT_NAME = "glm-folders";
const RECORD_NAME = "stored.json";
/** What is not whole ends so. */
export const PART = ".part";

/**
 * @typedef {object} StoredFolder
 * @property {string} id
 * @property {readonly string[]} keys  of the sources it came from
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
 * Take the place of a folder away if nothing came into it.
 * @param {string} id
 */
export async function deleteEmpty(id) {
  const root = await openRoot();
  await root.removeEntry(id).catch(() => {}); // refused where there are files
}

/**
 * Whether a name is taken by what is kept beside a folder's files.
 * @param {string} name
 */
export function isReserved(name) {
  return name === RECORD_NAME || name.endsWith(PART);
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
  const place = await findPlace(id);
  return new FileFolder(stored.label, await listNames(place), (name) => findFile(place, name), id);
}

/** @param {Uint8Array} manifest */
export function identify(manifest) {
  return bytesToHex(sha256(manifest)).slice(0, 32);
}

/**
 * Say that a folder is whole, and that it came from a source too.
 * @param {FileSystemDirectoryHandle} place
 * @param {{ key: string, label: string }} source
 */
export async function markWhole(place, { key, label }) {
  const { keys } = await readRecord(place);
  await writeRecord(place, { keys: [...new Set([...keys, key])], label });
}

/**
 * Another folder comes from a source by now: what came from nowhere else goes.
 * @param {StoredFolder} stored
 * @param {string} key
 */
export async function forgetSource({ id, keys, label }, key) {
  const others = keys.filter((one) => one !== key);
  if (!others.length) return deleteStored(id);
  return writeRecord(await findPlace(id), { keys: others, label });
}

/**
 * Files turned out to be damaged: the folder is no longer whole, and only they are fetched again.
 * @param {string} id
 * @param {readonly string[]} names
 */
export async function discardFiles(id, names) {
  const place = await findPlace(id);
  const there = await listNames(place);
  for (const name of [RECORD_NAME, ...names]) if (there.includes(name)) await place.removeEntry(name);
}

/**
 * @param {FileSystemDirectoryHandle} place
 * @param {{ keys: readonly string[], label: string }} record
 */
function writeRecord(place, record) {
  return writeFile(place, RECORD_NAME, new TextEncoder().encode(JSON.stringify(record)));
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
 * Write a small file, unless it is as it should be: whole, or not at all.
 * @param {FileSystemDirectoryHandle} place
 * @param {string} name
 * @param {Uint8Array} bytes
 * @throws {DOMException} there is no room, or another tab writes it.
 */
export async function writeFile(place, name, bytes) {
  const old = await findFile(place, name);
  if (old?.size === bytes.length && isEqual(new Uint8Array(await old.arrayBuffer()), bytes)) return;
  const file = await place.getFileHandle(`${name}${PART}`, { create: true });
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
 * @param {Uint8Array} right  as long
 */
function isEqual(left, right) {
  return left.every((byte, place) => byte === right[place]);
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
   * @param {string} [id]  of a folder that is kept
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
export async function hashStream(stream) {
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

/** @param {string} id */
async function findPlace(id) {
  return (await openRoot()).getDirectoryHandle(id);
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
  const { keys, label = "a download left half-way" } = await readRecord(place);
  return { id, keys, label, sizeBytes, isWhole: keys.length > 0 };
}

/**
 * No keys where a download was left half-way.
 * @param {FileSystemDirectoryHandle} place
 * @returns {Promise<{ keys: string[], label?: string }>}
 */
async function readRecord(place) {
  const file = await findFile(place, RECORD_NAME);
  try {
    const { keys, label } = JSON.parse(file ? await file.text() : "{}");
    return Array.isArray(keys) ? { keys, label } : { keys: [] };
  } catch {
    return { keys: [] };
  }
}
