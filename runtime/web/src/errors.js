/** Errors of this host beside the runtime's own, and how both cross from the worker to the page. */

import {
  FolderError,
  FormatVersionError,
  GenerationError,
  GlmRuntimeError,
  PromptError,
  SamplingError,
  firstLine,
} from "glm-runtime/core";

import { UnreachableError } from "./source_files.js";

/** There is no exported folder at an address, or in what was picked: its manifest is not there. */
export class AbsentError extends FolderError {}

/** The model is larger than what a page may hold. */
export class TooLargeError extends GlmRuntimeError {}

/** The browser has no room for the files, or another tab writes them. */
export class StorageError extends GlmRuntimeError {}

/** WebGPU cannot run this graph here; WebAssembly may. */
export class BackendError extends GlmRuntimeError {}

/** The end of its messages. */
export const WASM_ADVICE = 'load it with the backend "wasm".';

const CLASSES = new Map(
  [
    ...[FolderError, FormatVersionError, GenerationError, GlmRuntimeError, PromptError, SamplingError],
    ...[AbsentError, BackendError, StorageError, TooLargeError, UnreachableError],
  ].map((one) => [one.name, one]),
);

/** @typedef {{ kind: string, message: string }} PlainError */

/**
 * @param {unknown} error
 * @returns {PlainError}
 */
export function flatten(error) {
  for (const kind of CLASSES.keys()) {
    if (error instanceof GlmRuntimeError && error.name === kind) return { kind, message: error.message };
  }
  if (error instanceof DOMException) return { kind: error.name, message: error.message };
  return { kind: "Error", message: firstLine(error) };
}

/**
 * @param {PlainError} error
 * @returns {Error}
 */
export function restore({ kind, message }) {
  const type = CLASSES.get(kind);
  if (type) return new type(message);
  if (kind === "AbortError") return new DOMException(message, kind);
  return new GlmRuntimeError(`${message}; load the page again, and report it if it comes again.`);
}
