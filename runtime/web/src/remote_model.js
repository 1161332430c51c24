/** The page's interface to a model that runs in a worker. */

const PATIENCE_MS = 10_000; // the regular expression of a folder's tokenizer may never end

/** @typedef {import("glm-runtime/core").Message} Message */
/** @typedef {import("glm-runtime/core").Piece} Piece */
/** @typedef {import("glm-runtime/core").AnswerOptions & import("glm-runtime/core").ChatOptions} Options */
/** @typedef {import("./worker_channel.js").WorkerChannel} WorkerChannel */

/**
 * @typedef {object} Opened
 * @property {string} label
 * @property {string} note
 * @property {import("glm-runtime/core").ModelEntry} shape
 * @property {import("glm-runtime/core").Settings} defaults
 * @property {boolean} hasChat
 * @property {"wasm" | "webgpu"} backend
 * @property {number} threads
 */

/** A loaded model; made by `load`. */
export class RemoteModel {
  #channel;
  #sessions = 0;

  /**
   * @param {WorkerChannel} channel
   * @param {Opened} opened
   */
  constructor(channel, { label, note, shape, defaults, hasChat, backend, threads }) {
    this.#channel = channel;
    this.label = label;
    /** A message for the user, for example that WebGPU is not used; empty if there is none. */
    this.note = note;
    this.shape = shape;
    /** The settings of the folder's generation_config.json. */
    this.defaults = defaults;
    this.hasChat = hasChat;
    this.backend = backend;
    this.threads = threads;
  }

  /** Start a conversation with its own KV cache. */
  newSession() {
    return new RemoteSession(this.#channel, ++this.#sessions);
  }

  /**
   * Answer a conversation on a new session.
   * @param {readonly Message[]} messages
   * @param {Options} [options]
   */
  chat(messages, options) {
    return this.#runOnce((session) => session.chat(messages, options));
  }

  /**
   * Continue a prompt on a new session.
   * @param {string | readonly number[]} prompt
   * @param {Options} [options]
   */
  generate(prompt, options) {
    return this.#runOnce((session) => session.generate(prompt, options));
  }

  /**
   * @param {string} text
   * @returns {Promise<number[]>}
   */
  encode(text) {
    return this.#channel.call("encode", text);
  }

  /**
   * Render and tokenize a conversation.
   * @param {readonly Message[]} messages
   * @param {import("glm-runtime/core").ChatOptions} [options]
   * @returns {Promise<number[]>}
   */
  prepareChat(messages, options = {}) {
    return this.#channel.call("prepareChat", { messages, options });
  }

  /**
   * Compute the logits [V] after the last token.
   * @param {readonly number[]} tokens  one or more
   * @param {AbortSignal} [signal]
   * @returns {Promise<Float32Array>}
   */
  readLogits(tokens, signal) {
    return this.#channel.call("readLogits", tokens, { signal });
  }

  /** End the worker, and free its memory. The model cannot be used afterwards. */
  release() {
    this.#channel.close();
  }

  /**
   * @param {(session: RemoteSession) => AsyncGenerator<Piece, void, undefined>} ask
   * @returns {AsyncGenerator<Piece, void, undefined>}
   */
  async *#runOnce(ask) {
    const session = this.newSession();
    try {
      yield* ask(session);
    } finally {
      await session.release();
    }
  }
}

/** A conversation that keeps its KV cache: tokens that are cached are not computed again. */
export class RemoteSession {
  #channel;
  #number;

  /**
   * @param {WorkerChannel} channel
   * @param {number} number
   */
  constructor(channel, number) {
    this.#channel = channel;
    this.#number = number;
  }

  /**
   * Answer a conversation.
   * @param {readonly Message[]} messages  the whole conversation
   * @param {Options} [options]
   */
  chat(messages, options) {
    return this.#ask("chat", messages, options);
  }

  /**
   * Continue a prompt.
   * @param {string | readonly number[]} prompt
   * @param {Options} [options]
   */
  generate(prompt, options) {
    return this.#ask("generate", prompt, options);
  }

  /** Clear the conversation, and free its memory. */
  release() {
    return this.#channel.call("endSession", this.#number).catch(() => {}); // a released model has no sessions
  }

  /**
   * Yield pieces as they arrive. The worker is told to stop when the caller stops reading.
   * @param {"chat" | "generate"} kind
   * @param {unknown} prompt
   * @param {Options} [options]
   * @returns {AsyncGenerator<Piece, void, undefined>}
   */
  async *#ask(kind, prompt, { signal, ...options } = {}) {
    const left = new AbortController();
    const both = signal ? AbortSignal.any([signal, left.signal]) : left.signal;
    /** @type {Piece[]} */
    const pieces = [];
    let isOver = false;
    let wake = () => {};
    const onReport = (/** @type {Piece | { isRendered: true }} */ piece) => {
      if ("isRendered" in piece) return;
      pieces.push(piece);
      wake();
    };
    const value = { session: this.#number, kind, prompt, options };
    const end = this.#channel.call("answer", value, { onReport, signal: both, patienceMs: PATIENCE_MS });
    end.catch(() => {}).finally(() => {
      isOver = true;
      wake();
    });
    try {
      while (!isOver || pieces.length) {
        const piece = pieces.shift();
        if (piece) yield piece;
        else await new Promise((resolve) => (wake = () => resolve(undefined)));
      }
      await end;
    } finally {
      left.abort();
      await end.catch(() => {});
    }
  }
}
