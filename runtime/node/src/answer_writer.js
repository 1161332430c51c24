/** Turns the logits of one answer into pieces, and decides when the answer ends. */

import { AnswerReader } from "./answer.js";
import { PromptError } from "./errors.js";
import { Sampler } from "./sampler.js";

/** @typedef {import("./manifest.js").ModelEntry} ModelEntry */
/** @typedef {import("./settings.js").Settings} Settings */

/**
 * Why an answer ended: `stop`, the model ended it; `length`, maxNewTokens or the context length was
 * reached; `stop_string`, a stop string was found; `tool_calls`, the model called tools. A cancelled
 * answer has no finish reason: it throws.
 * @typedef {"stop" | "length" | "stop_string" | "tool_calls"} FinishReason
 */

/**
 * One generated token, and the text that is complete with it.
 * @typedef {object} Piece
 * @property {string} text  text of the answer; empty while a character or a possible stop string is incomplete
 * @property {string} reasoning  text of the reasoning before the answer
 * @property {number} tokenId  the generated token; the end-of-sequence token has a piece, too
 * @property {FinishReason | null} finishReason  set on the last piece only
 * @property {import("./answer.js").ToolCall[]} toolCalls  all tool calls, on the last piece only
 */

/** Writes the pieces of one answer. */
export class AnswerWriter {
  #model;
  #settings;
  #sampler;
  #reader;
  /** @type {number[]} */ #forced = [];
  /** Number of tokens that may still be generated. The last one is never fed back, so it needs no room in the KV cache. */
  remaining;

  /**
   * @param {import("./tokenizer.js").Tokenizer} tokenizer
   * @param {ModelEntry} model
   * @param {{ promptIds: readonly number[], settings: Settings, form: import("./answer.js").AnswerForm }} request
   * @throws {import("./errors.js").SamplingError} logitBias contains an invalid token id.
   * @throws {PromptError} the prompt is as long as maxLength.
   */
  constructor(tokenizer, model, { promptIds, settings, form }) {
    this.#model = model;
    this.#settings = settings;
    this.#sampler = new Sampler(forbidEos(settings, model), model.tokenizerVocabSize, promptIds);
    this.#reader = new AnswerReader(tokenizer, form, settings.stop);
    this.remaining = countNewTokens(settings, promptIds.length, model);
  }

  /**
   * Choose the next token. Do not call this again after a finish reason.
   * @param {Float32Array} logits  [V]
   * @returns {Piece}
   * @throws {import("./errors.js").GenerationError} a logit is NaN, or no logit is finite.
   */
  write(logits) {
    const limit = this.#settings.maxThinkingTokens;
    if (!this.#forced.length && limit !== null && this.#reader.mustCloseThinking(limit)) {
      this.#forced = this.#reader.closeThinking();
    }
    const tokenId = this.#choose(logits);
    const part = this.#reader.add(tokenId);
    this.remaining--;
    const finishReason = this.#findFinish(tokenId);
    if (finishReason === null) return { ...part, tokenId, finishReason };
    const rest = this.#reader.finish();
    return {
      text: part.text + rest.text,
      reasoning: part.reasoning + rest.reasoning,
      toolCalls: rest.toolCalls,
      tokenId,
      finishReason: rest.toolCalls.length && finishReason === "stop" ? "tool_calls" : finishReason,
    };
  }

  /** @param {Float32Array} logits */
  #choose(logits) {
    const forced = this.#forced.shift();
    if (forced === undefined) return this.#sampler.choose(logits);
    this.#sampler.accept(forced);
    return forced;
  }

  /**
   * @param {number} token
   * @returns {FinishReason | null}
   */
  #findFinish(token) {
    if (this.#model.eosTokenIds.includes(token)) return "stop";
    if (this.#reader.isStopped) return "stop_string";
    return this.remaining ? null : "length";
  }
}

/**
 * @param {Settings} settings
 * @param {ModelEntry} model
 * @returns {Settings}
 */
function forbidEos(settings, model) {
  if (!settings.ignoreEos) return settings;
  const ids = model.eosTokenIds.filter((id) => id < model.tokenizerVocabSize);
  const bans = ids.map((id) => /** @type {const} */ ([id, -Infinity]));
  return { ...settings, logitBias: [...settings.logitBias, ...bans] };
}

/**
 * Count the tokens that an answer can have.
 * @param {Settings} settings
 * @param {number} promptLength
 * @param {ModelEntry} model
 * @throws {PromptError} the prompt is as long as maxLength.
 */
function countNewTokens({ maxNewTokens, maxLength }, promptLength, model) {
  const room = model.contextLength - promptLength + 1;
  if (maxNewTokens !== null || maxLength === null) return Math.min(maxNewTokens ?? room, room);
  if (maxLength > promptLength) return Math.min(maxLength - promptLength, room);
  throw new PromptError(
    `the prompt has ${promptLength} tokens where maxLength=${maxLength} is the limit for prompt and answer ` +
      "together; set maxNewTokens, or shorten the prompt.",
  );
}
