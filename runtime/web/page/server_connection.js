/** Requests to the server that serves the page, with the API key if it asks for one. */

import { recall, remember } from "./remembered.js";

const KEY = "glm-api-key"; // in session storage, which the browser empties when the tab is closed

/** The server refuses a request, fails, or cannot be reached. */
export class ServerError extends Error {
  /**
   * @param {string} message
   * @param {boolean} isRefusal  whether the request itself is wrong
   */
  constructor(message, isRefusal = false) {
    super(message);
    this.name = "ServerError";
    this.isRefusal = isRefusal;
  }
}

/** Sends requests, and asks for a key until the server takes it. */
export class Connection {
  #askForKey;
  #key = recall("sessionStorage", KEY) ?? "";

  /** @param {(wasRefused: boolean) => Promise<string | null>} askForKey  `null` if the user gives none */
  constructor(askForKey) {
    this.#askForKey = askForKey;
  }

  /** Whether the server takes a key. */
  get hasKey() {
    return this.#key !== "";
  }

  /** The headers that have the key. @returns {Record<string, string>} */
  get headers() {
    return this.hasKey ? { Authorization: `Bearer ${this.#key}` } : {};
  }

  /** Forget the key, and ask for another one. */
  async changeKey() {
    const key = await this.#askForKey(false);
    if (key !== null) this.#keep(key);
  }

  /**
   * @param {string} path  relative to the page, which a proxy may have put below another path
   * @param {{ body?: object, signal?: AbortSignal | null }} [request]
   * @returns {Promise<Response>}
   * @throws {ServerError}
   */
  async send(path, { body, signal } = {}) {
    while (true) {
      const response = await this.#fetch(path, body, signal);
      if (response.ok) return response;
      if (response.status !== 401) throw await readError(response);
      const key = await this.#askForKey(this.hasKey);
      if (key === null) throw new ServerError("the server asks for an API key; send the message again to enter it.", true);
      signal?.throwIfAborted();
      this.#keep(key);
    }
  }

  /**
   * @param {string} path
   * @param {object} [body]
   * @param {AbortSignal | null} [signal]
   */
  async #fetch(path, body, signal) {
    const { headers } = this;
    const content = body && { method: "POST", body: JSON.stringify(body), headers: { ...headers, "Content-Type": "application/json" } };
    try {
      return await fetch(new URL(path, document.baseURI), { headers, signal, ...content });
    } catch (error) {
      signal?.throwIfAborted();
      throw new ServerError(`the server cannot be reached (${error}); start it, then try again.`, true);
    }
  }

  /** @param {string} key */
  #keep(key) {
    this.#key = key;
    remember("sessionStorage", KEY, key);
  }
}

/** @param {Response} response */
async function readError(response) {
  const answer = await response.json().catch(() => null);
  const words = answer?.error?.message ?? `the server answered with status ${response.status}; its log says more.`;
  return new ServerError(words, response.status < 500);
}
