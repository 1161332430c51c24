/**
 * Where a folder's files come from before they are kept: an address, or what the user picked.
 *
 * A source gives streams of bytes and knows nothing about hashes, storage or manifests.
 */

import { FolderError, firstLine } from "glm-runtime/core";

/**
 * @typedef {object} Source
 * @property {string} key  what the folder is remembered by
 * @property {string} label  for sentences
 * @property {boolean} isLasting  whether what comes from the same key later takes its place
 * @property {(name: string, start: number, signal?: AbortSignal) => Promise<Opened>} open  from byte `start` on, if it can
 */

/**
 * A file under way: its bytes from `start` on, which is 0 where the source cannot begin later.
 * @typedef {{ start: number, stream: ReadableStream<Uint8Array> }} Opened
 */

/** The folder is out of reach, though it may be there: no connection, or the server is down. */
export class UnreachableError extends FolderError {}

/** Files below an address. */
export class AddressSource {
  #base;

  /**
   * @param {string} address  of the folder, absolute
   * @throws {FolderError} it is no address that a page can read.
   */
  constructor(address) {
    this.#base = readAddress(address);
    this.key = this.#base.href;
    this.label = this.#base.href.replace(/\/$/, "");
    this.isLasting = true;
  }

  /**
   * @param {string} name
   * @param {number} start
   * @param {AbortSignal} [signal]
   * @returns {Promise<Opened>}
   * @throws {UnreachableError} there is no answer.
   * @throws {FolderError} the server refuses.
   */
  async open(name, start, signal) {
    const address = new URL(encodeURIComponent(name), this.#base).href;
    const headers = start ? { Range: `bytes=${start}-` } : undefined;
    const response = await this.#fetch(address, { headers, signal, cache: "no-store" });
    if (!response.ok) {
      if (start && response.status === 416) return this.open(name, 0, signal);
      if (response.status >= 500) throw new UnreachableError(`${address} is answered with status ${response.status}; try again later.`);
      const found = response.status === 404 ? "is missing" : `is refused with status ${response.status}`;
      throw new FolderError(`${this.label}/${name} ${found}; give the address of a folder that glm-export wrote.`);
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
          "and that its server allows other pages to read it (CORS).",
        error,
      );
    }
  }
}

/** Files that the user chose from the disk. */
export class PickedSource {
  #files;

  /**
   * @param {readonly File[]} files  of one folder; those of folders inside it are left out
   * @throws {FolderError} there are none.
   */
  constructor(files) {
    const paths = files.map((file) => file.webkitRelativePath || file.name);
    const depth = Math.min(...paths.map((path) => path.split("/").length));
    const chosen = files.filter((_, place) => paths[place].split("/").length === depth);
    if (!chosen.length) {
      throw new FolderError("the folder is empty where exported files are expected; pick the folder that glm-export wrote.");
    }
    this.#files = new Map(chosen.map((file) => [file.name, file]));
    this.label = paths[0].includes("/") ? paths[0].split("/")[0] : "the picked folder";
    this.key = "picked";
    this.isLasting = false; // what is picked later is another folder
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
    throw new FolderError(`${this.label}/${name} is missing; pick the folder that glm-export wrote.`);
  }
}

/** @param {string} address */
function readAddress(address) {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (!url || !["http:", "https:"].includes(url.protocol)) {
    throw new FolderError(`${JSON.stringify(address)} is no address of a folder; give one that begins with https://.`);
  }
  url.search = url.hash = "";
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

/**
 * A server of another origin may hide where it begins; it was asked to begin here, and the hash tells.
 * @param {string | null} range
 * @param {number} start
 */
function beginsAt(range, start) {
  return range === null || range.startsWith(`bytes ${start}-`);
}
