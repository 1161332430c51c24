/** A conversation that keeps its KV cache: the prefix that a prompt shares with the cache is not computed again. */

import { PLAIN_TEXT } from "./answer.js";
import { AnswerWriter } from "./answer_writer.js";
import { Decoder, checkLength } from "./decoder.js";
import { PromptError } from "./errors.js";
import { resolveSettings } from "./settings.js";

/** @typedef {import("./answer_writer.js").Piece} Piece */
/** @typedef {import("./settings.js").AnswerOptions} AnswerOptions */
/** @typedef {import("./chat_messages.js").ChatOptions} ChatOptions */
/** @typedef {import("./manifest.js").ModelEntry} ModelEntry */

/**
 * Answers one prompt after another with one KV cache. Starting an answer ends the one before it.
 */
export class Session {
  #model;
  #decoder;
  /** @type {number[]} */ #tokens = [];
  /** The answer that started last. An answer starts when its first piece is requested. */
  #running = noPieces();

  /** @param {import("./model.js").Model} model */
  constructor(model) {
    this.#model = model;
    this.#decoder = new Decoder(model.graph, model.manifest.model);
  }

  /** The tokens in the KV cache: those of the last prompt and its answer. */
  get tokens() {
    return this.#tokens.slice(0, this.#decoder.length);
  }

  /**
   * Answer a conversation. Only the tokens that are not in the KV cache yet are computed.
   * @param {readonly import("./chat_messages.js").Message[]} messages  the whole conversation
   * @param {AnswerOptions & ChatOptions} [options]
   * @throws {PromptError} the template fails on the messages, or they do not fit into the context.
   * @throws {import("./errors.js").SamplingError} an option is outside its range.
   */
  chat(messages, options = {}) {
    const { tools, enableThinking, continuesAnswer, isSanitized, template, ...rest } = options;
    const chosen = { tools, enableThinking, continuesAnswer, isSanitized, template };
    const { promptIds, form } = this.#model.prepareChat(messages, chosen);
    return this.#start(promptIds, rest, form);
  }

  /**
   * Continue a prompt.
   * @param {string | readonly number[]} prompt  text, to which no special tokens are added, or token ids
   * @param {AnswerOptions} [options]
   * @throws {PromptError} the prompt is empty, is too long, or contains an invalid token id.
   * @throws {import("./errors.js").SamplingError} an option is outside its range.
   */
  generate(prompt, options = {}) {
    const ids = typeof prompt === "string" ? this.#model.tokenizer.encode(prompt) : [...prompt];
    return this.#start(ids, options, PLAIN_TEXT);
  }

  /** End the current answer, clear the conversation, and free the memory of its KV cache. */
  async release() {
    await this.#running.return();
    this.#decoder.release();
    this.#tokens = [];
  }

  /**
   * @param {number[]} promptIds
   * @param {AnswerOptions} options
   * @param {import("./answer.js").AnswerForm} form
   */
  #start(promptIds, options, form) {
    const { tokenizer, manifest, defaults } = this.#model;
    checkPrompt(promptIds, manifest.model);
    const settings = resolveSettings(options, defaults);
    const writer = new AnswerWriter(tokenizer, manifest.model, { promptIds, settings, form });
    /** @type {AsyncGenerator<Piece, void, undefined>} */
    const answer = this.#run(promptIds, writer, settings.signal, () => answer);
    return answer;
  }

  /**
   * @param {number[]} promptIds
   * @param {AnswerWriter} writer
   * @param {AbortSignal | null} signal
   * @param {() => AsyncGenerator<Piece, void, undefined>} getSelf
   * @returns {AsyncGenerator<Piece, void, undefined>}
   */
  async *#run(promptIds, writer, signal, getSelf) {
    const previous = this.#running;
    this.#running = getSelf();
    await previous.return(); // an unfinished answer must not write into the cache later
    const decoder = this.#decoder;
    const chunk = this.#model.graph.chunkTokens;
    // The last token is computed again even if it is cached: the answer starts from its logits.
    const shared = Math.min(countShared(this.tokens, promptIds), promptIds.length - 1);
    decoder.truncate(shared);
    this.#tokens = [...promptIds];
    /** @type {readonly number[]} */
    let unread = promptIds.slice(shared);
    while (true) {
      const logits = await prefill(decoder, unread, chunk, signal);
      const piece = writer.write(logits);
      this.#tokens.push(piece.tokenId);
      yield piece;
      if (piece.finishReason !== null) return;
      unread = [piece.tokenId];
    }
  }
}

/**
 * Chunked prefill. Returns the logits [V] after the last token.
 * @param {Decoder} decoder
 * @param {readonly number[]} tokens
 * @param {number} chunk
 * @param {AbortSignal | null} signal
 */
async function prefill(decoder, tokens, chunk, signal) {
  /** @type {Float32Array | null} */
  let logits = null;
  for (let start = 0; start < tokens.length; start += chunk) {
    signal?.throwIfAborted();
    logits = await decoder.append(tokens.slice(start, start + chunk));
  }
  signal?.throwIfAborted();
  return /** @type {Float32Array} */ (logits);
}

/**
 * Check that the model can read a prompt.
 * @param {readonly number[]} promptIds
 * @param {ModelEntry} model
 */
function checkPrompt(promptIds, model) {
  if (!promptIds.length) {
    throw new PromptError("the prompt is empty where at least one token is expected; write a prompt.");
  }
  checkLength(promptIds.length, model);
  const limit = model.tokenizerVocabSize;
  const wrong = promptIds.find((id) => !(Number.isInteger(id) && id >= 0 && id < limit));
  if (wrong !== undefined) {
    throw new PromptError(
      `the prompt contains the token id ${wrong} where ids below ${limit} are expected; ` +
        "encode it with this folder's tokenizer.",
    );
  }
}

/**
 * Length of the common prefix of two sequences.
 * @param {readonly number[]} left
 * @param {readonly number[]} right
 */
function countShared(left, right) {
  let count = 0;
  while (count < left.length && left[count] === right[count]) count++;
  return count;
}

/**
 * An answer without pieces: the initial value, before the first answer.
 * @returns {AsyncGenerator<Piece, void, undefined>}
 */
async function* noPieces() {}
