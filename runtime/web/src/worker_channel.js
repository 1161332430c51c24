/**
 * Calls from a page to its worker. Each call has one result or error, and any number of reports before it.
 *
 *     page -> worker    { id, method, value } | { id, isAborted: true }
 *     worker -> page    { id, report } | { id, value } | { id, error }
 */

import { GenerationError, GlmRuntimeError } from "glm-runtime/core";

import { toPlainError, fromPlainError } from "./errors.js";

/**
 * @typedef {object} CallOptions
 * @property {(report: any) => void} [onReport]
 * @property {AbortSignal | null} [signal]
 * @property {number} [patienceMs]  the worker is ended if it has not reported anything this long after an abort
 */

/** The page's side. */
export class WorkerChannel {
  #worker;
  #last = 0;
  /** @type {Map<number, { resolve(value: any): void, reject(error: unknown): void, onReport?(report: any): void }>} */
  #calls = new Map();
  /** @type {Error | null} */ #end = null;

  /** @param {Worker} worker */
  constructor(worker) {
    this.#worker = worker;
    worker.onmessage = ({ data }) => this.#receive(data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.close(new GlmRuntimeError(`the worker failed (${event.message ?? "its script could not be loaded"}); load the model again.`));
    };
  }

  /**
   * @param {string} method
   * @param {unknown} value
   * @param {CallOptions} [options]
   * @returns {Promise<any>}
   */
  async call(method, value, { onReport, signal, patienceMs } = {}) {
    signal?.throwIfAborted();
    if (this.#end) throw this.#end;
    const id = ++this.#last;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    let hasBegun = false;
    const abort = () => {
      this.#worker.postMessage({ id, isAborted: true });
      if (patienceMs && !hasBegun) timer = setTimeout(() => this.close(giveUp(patienceMs)), patienceMs);
    };
    signal?.addEventListener("abort", abort);
    try {
      return await new Promise((resolve, reject) => {
        const report = (/** @type {any} */ value) => {
          hasBegun = true;
          clearTimeout(timer);
          onReport?.(value);
        };
        this.#calls.set(id, { resolve, reject, onReport: report });
        this.#worker.postMessage({ id, method, value });
      });
    } catch (error) {
      if (!(error instanceof GenerationError)) signal?.throwIfAborted(); // throw the caller's own reason, not a copy of it
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
      clearTimeout(timer);
      this.#calls.delete(id);
    }
  }

  /**
   * End the worker. Calls that are not finished fail.
   * @param {Error} [error]
   */
  close(error = new GlmRuntimeError("the model was released; load the model again.")) {
    this.#worker.terminate();
    this.#end ??= error;
    for (const call of this.#calls.values()) call.reject(this.#end);
  }

  /** @param {any} message */
  #receive({ id, report, value, error }) {
    const call = this.#calls.get(id);
    if (report !== undefined) call?.onReport?.(report);
    else if (error) call?.reject(fromPlainError(error));
    else call?.resolve(value);
  }
}

/** @param {number} patienceMs */
function giveUp(patienceMs) {
  return new GenerationError(
    `the model did not stop within ${patienceMs / 1000} s and was ended; load it again, or load another folder.`,
  );
}

/**
 * Computes the result of a call.
 * @typedef {(value: any, context: { signal: AbortSignal, report: (report: any) => void }) => Promise<unknown>} Handler
 */

/**
 * The worker's side.
 * @param {Record<string, Handler>} handlers
 */
export function serve(handlers) {
  /** @type {Map<number, AbortController>} */
  const calls = new Map();
  self.onmessage = async ({ data: { id, method, value, isAborted } }) => {
    if (isAborted) return calls.get(id)?.abort();
    const controller = new AbortController();
    calls.set(id, controller);
    /** @param {unknown} report */
    const report = (report) => self.postMessage({ id, report });
    try {
      self.postMessage({ id, value: await handlers[method](value, { signal: controller.signal, report }) });
    } catch (error) {
      self.postMessage({ id, error: toPlainError(error) });
    } finally {
      calls.delete(id);
    }
  };
}
