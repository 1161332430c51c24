/**
 * Files of a folder, from their source to where they are kept, each byte hashed on its way.
 *
 * crypto.subtle digests whole arrays only, which a file of gigabytes cannot be; so SHA-256 is
 * computed in pieces, by @noble/hashes.
 */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { FolderError, firstLine } from "glm-runtime/core";

import { StorageError } from "./errors.js";
import { UnreachableError } from "./source_files.js";
import { PART, findFile, hashStream, openAccess, readChunks, writeAt } from "./stored_folders.js";
import { formatBytes } from "./units.js";

/** @typedef {import("glm-runtime/core").FileEntry} FileEntry */

/**
 * How far it is.
 * @typedef {{ name: string, doneBytes: number, totalBytes: number }} Progress
 */

/**
 * @typedef {object} Request
 * @property {import("./source_files.js").Source} source
 * @property {(progress: Progress) => void} report
 * @property {boolean} [verify]  fetch anew what is kept and was changed
 * @property {AbortSignal} [signal]
 */

/**
 * Where one file is written to.
 * @typedef {object} Part
 * @property {Blob | null} old  bytes that are there from an earlier try
 * @property {(chunk: Uint8Array, at: number) => void} write
 * @property {() => Promise<void>} finish  it is whole
 * @property {(isWanted: boolean) => Promise<void>} leave  it is not; what is there may be wanted later
 */

/**
 * Fetch files one after the other.
 * @param {Request} request
 * @param {[string, FileEntry][]} wanted
 * @param {(name: string, entry: FileEntry) => Promise<Part | null>} open  `null` for what is whole already
 * @throws {FolderError} a file is missing, or not what the manifest promises.
 * @throws {StorageError} there is no room.
 */
export async function fetchFiles({ source, report, signal }, wanted, open) {
  const totalBytes = wanted.reduce((sum, [, { sizeBytes }]) => sum + sizeBytes, 0);
  let before = 0;
  for (const [name, entry] of wanted) {
    signal?.throwIfAborted();
    const start = before;
    /** @param {number} done */
    const show = (done) => report({ name, doneBytes: start + done, totalBytes });
    show(0);
    const part = await open(name, entry);
    if (part) await fetchFile({ source, signal, name, entry, part, show });
    before += entry.sizeBytes;
    show(entry.sizeBytes);
  }
}

/**
 * @typedef {object} FileRequest
 * @property {import("./source_files.js").Source} source
 * @property {AbortSignal} [signal]
 * @property {string} name
 * @property {FileEntry} entry
 * @property {Part} part
 * @property {(done: number) => void} show
 */

/** @param {FileRequest} request */
async function fetchFile(request) {
  const { part, entry, source, name } = request;
  let isDamaged = false;
  try {
    const found = await copyBytes(request);
    isDamaged = found !== null;
    if (found !== null) {
      throw new FolderError(`${source.label} is damaged: ${name} ${found}; copy the folder or export again.`);
    }
    await part.finish();
    request.show(entry.sizeBytes);
  } catch (error) {
    const explained = explainFull(error, name, entry.sizeBytes);
    await part.leave(!isDamaged && explained === error);
    throw explained;
  }
}

/**
 * The browser's error in our words where it has no room, and else the error itself.
 * @param {unknown} error
 * @param {string} name
 * @param {number} sizeBytes
 */
export function explainFull(error, name, sizeBytes) {
  if (!(error instanceof DOMException) || error.name !== "QuotaExceededError") return error;
  return new StorageError(
    `this browser has no room for ${name} (${formatBytes(sizeBytes)}); delete what is kept, or free disk space.`,
    error,
  );
}

/**
 * @param {unknown} error
 * @param {string} name
 */
export function explainAccess(error, name) {
  const isTaken = error instanceof DOMException && error.name === "NoModificationAllowedError";
  const found = isTaken ? "is being written by another tab" : "cannot be written in this browser";
  const advice = isTaken ? "wait for it, or close that tab" : "free disk space, or delete what is kept";
  return new StorageError(`${name} ${found} (${firstLine(error)}); ${advice}.`, error);
}

/**
 * Copy what is missing; returns what is wrong with the whole.
 * @param {FileRequest} request
 * @returns {Promise<string | null>}
 */
async function copyBytes({ source, signal, name, entry, part, show }) {
  const digest = sha256.create();
  const { start, stream } = await source.open(name, part.old?.size ?? 0, signal);
  let size = 0;
  if (start && part.old) {
    for await (const chunk of readChunks(part.old.stream())) digest.update(chunk);
    size = start;
  }
  try {
    for await (const chunk of readChunks(stream)) {
      signal?.throwIfAborted();
      if (size + chunk.length > entry.sizeBytes) return `has more than the ${entry.sizeBytes} bytes that the manifest says`;
      part.write(chunk, size);
      digest.update(chunk);
      size += chunk.length;
      show(size);
    }
  } catch (error) {
    throw signal?.aborted || error instanceof DOMException ? error : breakOff(source, name, size, error);
  }
  if (size !== entry.sizeBytes) return `has ${size} bytes, the manifest says ${entry.sizeBytes}`;
  const isSame = bytesToHex(digest.digest()) === entry.sha256;
  return isSame ? null : "was changed: its SHA-256 is not the manifest's";
}

/**
 * @param {import("./source_files.js").Source} source
 * @param {string} name
 * @param {number} size
 * @param {unknown} error
 */
function breakOff(source, name, size, error) {
  return new UnreachableError(
    `${source.label}/${name} broke off after ${formatBytes(size)} (${firstLine(error)}); ` +
      "open it again: what is there is kept.",
    error,
  );
}

/**
 * A file in the origin private file system; `NAME.part` until it is whole.
 * @implements {Part}
 */
export class DiskPart {
  #file;
  #access;
  #name;
  #place;

  /**
   * @param {FileSystemDirectoryHandle} place
   * @param {string} name
   * @param {{ file: FileSystemFileHandle, access: import("./stored_folders.js").SyncAccess, old: Blob }} opened
   */
  constructor(place, name, { file, access, old }) {
    this.#place = place;
    this.#name = name;
    this.#file = file;
    this.#access = access;
    this.old = old;
  }

  /**
   * @param {FileSystemDirectoryHandle} place
   * @param {string} name
   * @param {FileEntry} entry
   * @param {boolean} verify  what is there counts by its hash, not by its size
   * @throws {StorageError} another tab is writing it.
   */
  static async open(place, name, entry, verify) {
    if (await isThere(place, name, entry, verify)) return null;
    const file = await place.getFileHandle(`${name}${PART}`, { create: true });
    const old = await file.getFile();
    try {
      const access = await openAccess(file);
      return new DiskPart(place, name, { file, access, old: old.size < entry.sizeBytes ? old : new Blob() });
    } catch (error) {
      // Nothing that was begun; another tab's file is not let go.
      if (!old.size) await place.removeEntry(`${name}${PART}`).catch(() => {});
      throw explainAccess(error, name);
    }
  }

  /**
   * @param {Uint8Array} chunk
   * @param {number} at
   */
  write(chunk, at) {
    if (at === 0) this.#access.truncate(0); // no bytes of an earlier try behind these
    writeAt(this.#access, chunk, at);
  }

  async finish() {
    this.#access.flush();
    this.#access.close();
    await /** @type {any} */ (this.#file).move(this.#name);
  }

  /** @param {boolean} isWanted */
  async leave(isWanted) {
    this.#access.close();
    if (!isWanted) await this.#place.removeEntry(`${this.#name}${PART}`);
  }
}

/**
 * @param {FileSystemDirectoryHandle} place
 * @param {string} name
 * @param {FileEntry} entry
 * @param {boolean} verify
 */
async function isThere(place, name, entry, verify) {
  const file = await findFile(place, name);
  if (file?.size !== entry.sizeBytes) return false;
  return !verify || bytesToHex(await hashStream(file.stream())) === entry.sha256;
}

/**
 * A file held in memory.
 * @implements {Part}
 */
export class MemoryPart {
  /** @type {Uint8Array[]} */ #chunks = [];
  #keep;
  old = null;

  /** @param {(whole: Blob) => void} keep */
  constructor(keep) {
    this.#keep = keep;
  }

  /** @param {Uint8Array} chunk */
  write(chunk) {
    this.#chunks.push(chunk);
  }

  async finish() {
    this.#keep(new Blob(/** @type {BlobPart[]} */ (this.#chunks)));
  }

  async leave() {
    this.#chunks = [];
  }
}
