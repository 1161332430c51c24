/**
 * Tokens of one answer to its parts: thinking, text, tool calls; stop strings end it.
 *
 * Read `stream_decoder.js`, `thinking.js`, `stop_strings.js` and `tool_calls.js` for each step.
 */

import { StopStrings } from "./stop_strings.js";
import { CLOSING, ThinkingSplitter } from "./thinking.js";
import { ToolCallParser } from "./tool_calls.js";

// Between calls the model begins another turn of its own.
const TURN = "<|assistant|>";

/**
 * What an answer may be made of: in a chat, thinking is told from the answer.
 * @typedef {object} AnswerForm
 * @property {boolean} isChat
 * @property {boolean} isThinking  the prompt ends inside the thinking
 * @property {readonly string[]} toolNames  of the declared tools
 */

/** @typedef {import("./tool_calls.js").ToolCall} ToolCall */
/** @typedef {{ text: string, reasoning: string, toolCalls: ToolCall[] }} AnswerPart */

/** @type {AnswerForm} */
export const PLAIN_TEXT = { isChat: false, isThinking: false, toolNames: [] };

/** Reads the tokens of one answer, in order. */
export class AnswerReader {
  #tokenizer;
  #stream;
  #splitter;
  #stopStrings;
  #parser;
  #turnId;
  #thinkingTokens = 0;

  /**
   * @param {import("./tokenizer.js").Tokenizer} tokenizer
   * @param {AnswerForm} form
   * @param {readonly string[]} stop
   */
  constructor(tokenizer, form, stop) {
    this.#tokenizer = tokenizer;
    this.#stream = tokenizer.stream();
    this.#splitter = form.isChat ? new ThinkingSplitter(form.isThinking) : null;
    this.#stopStrings = new StopStrings(stop);
    this.#parser = new ToolCallParser(form.toolNames);
    this.#turnId = form.toolNames.length ? tokenizer.findId(TURN) : undefined;
  }

  /** Whether a stop string appeared. */
  get isStopped() {
    return this.#stopStrings.isFound;
  }

  /** Whether the next token belongs to the thinking. */
  get isThinking() {
    return this.#splitter?.isThinking ?? false;
  }

  /**
   * Whether so many tokens were thought, and the last one finished its character.
   * @param {number} limit
   */
  mustCloseThinking(limit) {
    return this.isThinking && this.#thinkingTokens >= limit && this.#stream.isComplete;
  }

  /** The tokens that end the thinking here. */
  closeThinking() {
    return this.#tokenizer.encode(`\n${CLOSING}\n\n`);
  }

  /**
   * @param {number} token
   * @returns {AnswerPart}
   */
  add(token) {
    if (this.isThinking) this.#thinkingTokens++;
    const [reasoning, text] = this.#split(token === this.#turnId ? "\n" : this.#stream.add(token));
    return { text: this.#parser.add(this.#stopStrings.add(text)), reasoning, toolCalls: [] };
  }

  /**
   * What was held back; nothing after a stop string.
   * @returns {AnswerPart}
   */
  finish() {
    let [reasoning, text] = ["", ""];
    if (!this.isStopped) {
      [reasoning, text] = this.#split(this.#stream.flush());
      const [moreReasoning, more] = this.#splitter?.flush() ?? ["", ""];
      reasoning += moreReasoning;
      text = this.#stopStrings.add(text + more) + this.#stopStrings.flush();
    }
    text = this.#parser.add(text);
    const [rest, toolCalls] = this.#parser.finish();
    return { text: text + rest, reasoning, toolCalls };
  }

  /**
   * @param {string} text
   * @returns {[reasoning: string, text: string]}
   */
  #split(text) {
    return this.#splitter ? this.#splitter.add(text) : ["", text];
  }
}
