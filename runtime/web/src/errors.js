/** The error classes that only this package has, and the conversion of errors to messages between worker and page. */

import {
  FolderError,
  FormatVersionError,
  GenerationError,
  GlmRuntimeError,
  HostileTemplateError,
  PromptError,
  SamplingError,
  firstLine,
} from "glm-runtime/core";

import { UnreachableError } from "./source_files.js";

/** An address or a picked folder has no manifest, so it is not an exported folder. */
export class AbsentError extends FolderError {}

/** The model is larger than the memory that a page can use. */
export class TooLargeError extends GlmRuntimeError {}

/** The browser cannot store the files: its storage is full, or another tab is writing them. */
export class StorageError extends GlmRuntimeError {}

/** WebGPU cannot run this graph in this browser. WebAssembly may be able to. */
export class BackendError extends GlmRuntimeError {}

/** The last words of the messages of a BackendError. */
export const WASM_ADVICE = 'load it with the backend "wasm".';

const CLASSES = new Map(
  [
    ...[FolderError, FormatVersionError, GenerationError, GlmRuntimeError, HostileTemplateError, PromptError],
    SamplingError,
    ...[AbsentError, BackendError, StorageError, TooLargeError, UnreachableError],
  ].map((one) => [one.name, one]),
);

/** @typedef {{ kind: string, message: string }} PlainError */

/**
 * @param {unknown} error
 * @returns {PlainError}
 */
export function toPlainError(error) {
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
export function fromPlainError({ kind, message }) {
  const type = CLASSES.get(kind);
  if (type) return new type(message);
  if (kind === "AbortError") return new DOMException(message, kind);
  return new GlmRuntimeError(`${message}; reload the page, and report this error if it happens again.`);
}
