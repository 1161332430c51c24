/**
 * The sources of a folder's files: an address, or files that the user picked.
 *
 * A source returns streams of bytes. It knows nothing about hashes, storage or manifests.
 */

import { FolderError, firstLine } from "glm-runtime/core";

/**
 * @typedef {object} Source
 * @property {string} key  identifies the source among stored folders
 * @property {string} label  its address or name, for messages
 * @property {boolean} replacesEarlier  whether a folder replaces one that came from the same key earlier
 * @property {(name: string, start: number, signal?: AbortSignal) => Promise<Opened>} open  open a file from byte `start` on, if the source can
 */

/**
 * An open file: its bytes from `start` on. `start` is 0 if the source can only begin at the first byte.
 * @typedef {{ start: number, stream: ReadableStream<Uint8Array> }} Opened
 */

/** The server cannot be reached, or it fails. The folder may exist nevertheless. */
export class UnreachableError extends FolderError {}

/** The files of a folder at an address. */
export class AddressSource {
  #base;

  /**
   * @param {string} address  the folder's absolute address
   * @throws {FolderError} the address is not an http or https address.
   */
  constructor(address) {
    this.#base = readAddress(address);
    this.key = this.#base.href;
    this.label = this.#base.href.replace(/\/$/, "");
    this.replacesEarlier = true;
  }

  /**
   * @param {string} name
   * @param {number} start
   * @param {AbortSignal} [signal]
   * @returns {Promise<Opened>}
   * @throws {UnreachableError} the server cannot be reached, or it fails.
   * @throws {FolderError} the file is missing, or the server refuses it.
   */
  async open(name, start, signal) {
    const address = new URL(encodeURIComponent(name), this.#base).href;
    const headers = start ? { Range: `bytes=${start}-` } : undefined;
    const response = await this.#fetch(address, { headers, signal, cache: "no-store" });
    if (!response.ok) {
      if (start && response.status === 416) return this.open(name, 0, signal);
      if (response.status >= 500) throw new UnreachableError(`the server of ${address} failed with status ${response.status}; try again later.`);
      const found = response.status === 404 ? "is missing" : `was refused with status ${response.status}`;
      throw new FolderError(`${this.label}/${name} ${found}; enter the address of a folder that glm-export wrote.`);
    }
    const isLater = response.status === 206 && beginsAt(response.headers.get("Content-Range"), start);
    return { start: isLater ? start : 0, stream: response.body ?? new Blob().stream() };
  }

  /**
   * @param {string} address
   * @param {RequestInit} request
   */
  async #fetch(address, request) {
    try {
      return await fetch(address, request);
    } catch (error) {
      request.signal?.throwIfAborted();
      throw new UnreachableError(
        `${address} cannot be reached (${firstLine(error)}); check the address and the connection, ` +
          "and that its server allows this page to read it (CORS).",
        error,
      );
    }
  }
}

/** Files that the user picked from the disk. */
export class PickedSource {
  #files;

  /**
   * @param {readonly File[]} files  files of one folder; files of its subfolders are ignored
   * @throws {FolderError} there are no files.
   */
  constructor(files) {
    const paths = files.map((file) => file.webkitRelativePath || file.name);
    const depth = Math.min(...paths.map((path) => path.split("/").length));
    const chosen = files.filter((_, index) => paths[index].split("/").length === depth);
    if (!chosen.length) {
      throw new FolderError("the picked folder is empty; pick a folder that glm-export wrote.");
    }
    this.#files = new Map(chosen.map((file) => [file.name, file]));
    this.label = paths[0].includes("/") ? paths[0].split("/")[0] : "the picked folder";
    this.key = "picked";
    this.replacesEarlier = false; // two picked folders are different folders
  }

  /**
   * @param {string} name
   * @param {number} start
   * @returns {Promise<Opened>}
   */
  async open(name, start) {
    const file = this.#files.get(name);
    if (file) return { start, stream: file.slice(start).stream() };
    if ([...this.#files.keys()].some((one) => one.endsWith(".safetensors"))) {
      throw new FolderError(`${this.label} is a checkpoint, not an exported folder; export it first with \`glm-export\`.`);
    }
    throw new FolderError(`${this.label}/${name} is missing; pick a folder that glm-export wrote.`);
  }
}

/** @param {string} address */
function readAddress(address) {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (!url || !["http:", "https:"].includes(url.protocol)) {
    throw new FolderError(`${JSON.stringify(address)} is not the address of a folder; enter an address that begins with https://.`);
  }
  url.search = url.hash = "";
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

/**
 * Whether a response begins at byte `start`. A server of another origin may hide the range; then the
 * request is trusted, and the SHA-256 finds a mistake.
 * @param {string | null} range
 * @param {number} start
 */
function beginsAt(range, start) {
  return range === null || range.startsWith(`bytes ${start}-`);
}
