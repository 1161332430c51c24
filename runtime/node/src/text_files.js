/** Text and JSON of a folder, refused in words where they are missing or broken. */

import { readFile } from "node:fs/promises";

import { FolderError, firstLine } from "./errors.js";

/**
 * Read a file of UTF-8 text.
 * @param {string} path
 * @returns {Promise<string>}
 * @throws {FolderError} it is missing, cannot be read, or is not UTF-8.
 */
export async function readText(path) {
  const bytes = await readBytes(path);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new FolderError(`${path} is not UTF-8 text; export the folder again.`, error);
  }
}

/**
 * Read a file that holds a JSON object.
 * @param {string} path
 * @returns {Promise<Record<string, unknown>>}
 * @throws {FolderError} it is missing, no UTF-8, no JSON, or no object.
 */
export async function readObject(path) {
  const text = await readText(path);
  let content;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw new FolderError(`${path} is not JSON (${firstLine(error)}); export the folder again.`, error);
  }
  if (!isObject(content)) {
    throw new FolderError(`${path} does not hold an object; export the folder again.`);
  }
  return content;
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param {string} path */
async function readBytes(path) {
  try {
    return await readFile(path);
  } catch (error) {
    const isMissing = error instanceof Error && "code" in error && error.code === "ENOENT";
    const found = isMissing ? "is missing" : `cannot be read (${firstLine(error)})`;
    throw new FolderError(`${path} ${found}; copy the folder or export again.`, error);
  }
}
