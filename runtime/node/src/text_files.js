/**
 * The interface of an exported folder, and functions that read its text and JSON files.
 *
 * Each host implements the interface; `disk_folder.js` reads from a disk.
 */

import { FolderError, firstLine } from "./errors.js";

/**
 * An exported folder.
 * @typedef {object} Folder
 * @property {string} label  its path or address, for error messages
 * @property {() => Promise<readonly string[]>} listNames  names of its files; throws a FolderError if there is no folder
 * @property {(name: string) => Promise<Found>} find
 * @property {(name: string) => Promise<Uint8Array | null>} readBytes  content of a file; `null` if it is missing
 * @property {(name: string) => Promise<string>} hash  SHA-256 of a file in lower-case hexadecimal digits
 */

/**
 * The size of a file, or what is wrong with it, for example "is missing".
 * @typedef {{ sizeBytes: number, problem?: undefined } | { problem: string }} Found
 */

/**
 * Read a file of UTF-8 text.
 * @param {Folder} folder
 * @param {string} name
 * @returns {Promise<string>}
 * @throws {FolderError} the file is missing, cannot be read, or is not UTF-8.
 */
export async function readText(folder, name) {
  const path = `${folder.label}/${name}`;
  const bytes = await readWhole(folder, name, path);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new FolderError(`${path} is not UTF-8 text; export the folder again.`, error);
  }
}

/**
 * Read a file that contains a JSON object.
 * @param {Folder} folder
 * @param {string} name
 * @returns {Promise<Record<string, unknown>>}
 * @throws {FolderError} the file is missing, is not UTF-8, or is not a JSON object.
 */
export async function readObject(folder, name) {
  const text = await readText(folder, name);
  const path = `${folder.label}/${name}`;
  let content;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw new FolderError(`${path} is not JSON (${firstLine(error)}); export the folder again.`, error);
  }
  if (!isObject(content)) {
    throw new FolderError(`${path} is not a JSON object; export the folder again.`);
  }
  return content;
}

/**
 * A wrong value in an error: as JSON, where numbers that are too large for JavaScript would be null.
 * @param {unknown} value
 */
export function showValue(value) {
  return typeof value === "number" && !Number.isFinite(value) ? "too large a number" : JSON.stringify(value);
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * @param {Folder} folder
 * @param {string} name
 * @param {string} path
 */
async function readWhole(folder, name, path) {
  let bytes;
  try {
    bytes = await folder.readBytes(name);
  } catch (error) {
    throw new FolderError(`${path} cannot be read (${firstLine(error)}); copy the folder again, or export again.`, error);
  }
  if (bytes) return bytes;
  throw new FolderError(`${path} is missing; copy the folder again, or export again.`);
}
