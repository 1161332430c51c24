/**
 * Splits the tokens of one answer into reasoning, text and tool calls, and finds stop strings.
 *
 * Read `stream_decoder.js`, `thinking.js`, `stop_strings.js` and `tool_calls.js` for the single steps.
 */

import { TURN } from "./dialects/all_tools.js";
import { TAGS } from "./dialects/tagged.js";
import { StopStrings } from "./stop_strings.js";
import { CLOSING, ThinkingSplitter } from "./thinking.js";
import { ToolCallParser } from "./tool_calls.js";

// The model writes this token between two tool calls.
const TURN_TOKEN = "<|assistant|>";

/**
 * Which parts an answer can have.
 * @typedef {object} AnswerForm
 * @property {boolean} isChat  whether reasoning is separated from the text
 * @property {boolean} isThinking  whether the prompt ends inside the reasoning
 * @property {import("./dialects/dialect.js").CallDialect | null} dialect  how the model calls the declared tools
 * @property {number} numCalls  number of tool calls in the conversation so far, from which ids go on
 */

/**
 * A tool call. Its id differs from those of the conversation's other calls.
 * @typedef {import("./tool_calls.js").ParsedCall & { id: string }} ToolCall
 */
/** @typedef {{ text: string, reasoning: string, toolCalls: ToolCall[] }} AnswerPart */

/** @type {AnswerForm} */
export const PLAIN_TEXT = { isChat: false, isThinking: false, dialect: null, numCalls: 0 };

/** Takes the tokens of one answer in order, and returns its parts. */
export class AnswerReader {
  #tokenizer;
  #stream;
  #splitter;
  #stopStrings;
  #parser;
  #marks;
  #numCalls;
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
    this.#parser = new ToolCallParser(form.dialect);
    this.#numCalls = form.numCalls;
    this.#marks = findMarks(tokenizer, form.dialect);
  }

  /** Whether a stop string was found. */
  get isStopped() {
    return this.#stopStrings.isFound;
  }

  /** Whether the next token belongs to the reasoning. */
  get isThinking() {
    return this.#splitter?.isThinking ?? false;
  }

  /**
   * Whether the reasoning must end here, at a complete character.
   * @param {number} limit  maximum number of reasoning tokens
   */
  mustCloseThinking(limit) {
    return this.isThinking && this.#thinkingTokens >= limit && this.#stream.isComplete;
  }

  /** The tokens that end the reasoning. */
  closeThinking() {
    return this.#tokenizer.encode(`\n${CLOSING}\n\n`);
  }

  /**
   * @param {number} token
   * @returns {AnswerPart}
   */
  add(token) {
    if (this.isThinking) this.#thinkingTokens++;
    const [reasoning, text] = this.#split(this.#marks.get(token) ?? this.#stream.add(token));
    return { text: this.#parser.add(this.#stopStrings.add(text)), reasoning, toolCalls: [] };
  }

  /**
   * Return the text that was held back. It is empty after a stop string.
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
    const [rest, calls] = this.#parser.finish();
    const toolCalls = calls.map((call, index) => ({ ...call, id: `call_${this.#numCalls + index}` }));
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

/**
 * The text of special tokens that belong to calls.
 * @param {import("./tokenizer.js").Tokenizer} tokenizer
 * @param {import("./dialects/dialect.js").CallDialect | null} dialect
 * @returns {Map<number | undefined, string>}
 */
function findMarks(tokenizer, dialect) {
  if (!dialect) return new Map();
  const tags = TAGS.includes(dialect.mark) ? TAGS : [];
  const turn = dialect.mark === TURN ? TURN : "\n";
  return new Map([
    [tokenizer.findId(TURN_TOKEN), turn],
    ...tags.map((tag) => /** @type {const} */ ([tokenizer.findId(tag), tag])),
  ]);
}
