/**
 * Copies the files of a folder from their source to the browser's storage, and compares their SHA-256.
 *
 * @noble/hashes computes the SHA-256 chunk by chunk. crypto.subtle could hash only a whole file in
 * memory, which is too large.
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
 * The progress of a download.
 * @typedef {{ name: string, doneBytes: number, totalBytes: number }} Progress
 */

/**
 * @typedef {object} Request
 * @property {import("./source_files.js").Source} source
 * @property {(progress: Progress) => void} report
 * @property {boolean} [verify]  compare the SHA-256 of stored files, and fetch changed files again
 * @property {AbortSignal} [signal]
 */

/**
 * The destination of one file.
 * @typedef {object} Part
 * @property {Blob | null} old  bytes from an earlier, incomplete download
 * @property {(chunk: Uint8Array, at: number) => void} write
 * @property {() => Promise<void>} finish  called when the file is complete
 * @property {(isResumable: boolean) => Promise<void>} leave  called when the download failed; isResumable: whether the next download may continue from these bytes
 */

/**
 * Fetch files one after another.
 * @param {Request} request
 * @param {[string, FileEntry][]} wanted
 * @param {(name: string, entry: FileEntry) => Promise<Part | null>} open  returns `null` for a file that is already stored
 * @throws {FolderError} a file is missing, or does not match the manifest.
 * @throws {StorageError} the browser's storage is full.
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
      throw new FolderError(`${source.label} is damaged: ${name} ${found}; copy the folder again, or export again.`);
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
 * Turn the browser's error about full storage into a StorageError; return any other error unchanged.
 * @param {unknown} error
 * @param {string} name
 * @param {number} sizeBytes
 */
export function explainFull(error, name, sizeBytes) {
  if (!(error instanceof DOMException) || error.name !== "QuotaExceededError") return error;
  return new StorageError(
    `this browser has not enough storage for ${name} (${formatBytes(sizeBytes)}); delete saved models, or free disk space.`,
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
  const advice = isTaken ? "wait until that tab is done, or close it" : "free disk space, or delete saved models";
  return new StorageError(`${name} ${found} (${firstLine(error)}); ${advice}.`, error);
}

/**
 * Copy the missing bytes of a file; returns what is wrong with the file, or `null`.
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
      if (size + chunk.length > entry.sizeBytes) return `has more than the ${entry.sizeBytes} bytes in the manifest`;
      part.write(chunk, size);
      digest.update(chunk);
      size += chunk.length;
      show(size);
    }
  } catch (error) {
    throw signal?.aborted || error instanceof DOMException ? error : breakOff(source, name, size, error);
  }
  if (size !== entry.sizeBytes) return `has ${size} bytes where the manifest says ${entry.sizeBytes}`;
  const isSame = bytesToHex(digest.digest()) === entry.sha256;
  return isSame ? null : "was changed: its SHA-256 differs from the manifest";
}

/**
 * @param {import("./source_files.js").Source} source
 * @param {string} name
 * @param {number} size
 * @param {unknown} error
 */
function breakOff(source, name, size, error) {
  return new UnreachableError(
    `the download of ${source.label}/${name} was interrupted after ${formatBytes(size)} (${firstLine(error)}); ` +
      "open the folder again to continue the download.",
    error,
  );
}

/**
 * A file in the origin private file system. It is called `NAME.part` until it is complete.
 * @implements {Part}
 */
export class DiskPart {
  #file;
  #access;
  #name;
  #directory;

  /**
   * @param {FileSystemDirectoryHandle} directory
   * @param {string} name
   * @param {{ file: FileSystemFileHandle, access: import("./stored_folders.js").SyncAccess, old: Blob }} opened
   */
  constructor(directory, name, { file, access, old }) {
    this.#directory = directory;
    this.#name = name;
    this.#file = file;
    this.#access = access;
    this.old = old;
  }

  /**
   * @param {FileSystemDirectoryHandle} directory
   * @param {string} name
   * @param {FileEntry} entry
   * @param {boolean} verify  compare the SHA-256 of a stored file, not only its size
   * @throws {StorageError} another tab is writing it.
   */
  static async open(directory, name, entry, verify) {
    if (await isThere(directory, name, entry, verify)) return null;
    const file = await directory.getFileHandle(`${name}${PART}`, { create: true });
    const old = await file.getFile();
    try {
      const access = await openAccess(file);
      return new DiskPart(directory, name, { file, access, old: old.size < entry.sizeBytes ? old : new Blob() });
    } catch (error) {
      // Remove the empty file; the browser refuses this for a file that another tab is writing.
      if (!old.size) await directory.removeEntry(`${name}${PART}`).catch(() => {});
      throw explainAccess(error, name);
    }
  }

  /**
   * @param {Uint8Array} chunk
   * @param {number} at
   */
  write(chunk, at) {
    if (at === 0) this.#access.truncate(0); // remove the bytes of an earlier download
    writeAt(this.#access, chunk, at);
  }

  async finish() {
    this.#access.flush();
    this.#access.close();
    await /** @type {any} */ (this.#file).move(this.#name);
  }

  /** @param {boolean} isResumable */
  async leave(isResumable) {
    this.#access.close();
    if (!isResumable) await this.#directory.removeEntry(`${this.#name}${PART}`);
  }
}

/**
 * @param {FileSystemDirectoryHandle} directory
 * @param {string} name
 * @param {FileEntry} entry
 * @param {boolean} verify
 */
async function isThere(directory, name, entry, verify) {
  const file = await findFile(directory, name);
  if (file?.size !== entry.sizeBytes) return false;
  return !verify || bytesToHex(await hashStream(file.stream())) === entry.sha256;
}

/**
 * A file that is kept in memory only.
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
