/** A model of the server that serves the page, as a `ChatModel`: `POST /v1/chat/completions`. */

import { EventSourceParserStream } from "eventsource-parser/stream";

import { ServerError } from "./server_connection.js";

/** The page's names of options, and OpenAI's. */
const OPTIONS = Object.entries({
  temperature: "temperature",
  topP: "top_p",
  topK: "top_k",
  minP: "min_p",
  repetitionPenalty: "repetition_penalty",
  presencePenalty: "presence_penalty",
  frequencyPenalty: "frequency_penalty",
  seed: "seed",
  maxNewTokens: "max_completion_tokens",
  tools: "tools",
});

/** The server keeps no conversation: each request holds all messages, and the server finds their prefix in its cache. */
export class ServerModel {
  #connection;
  #name;

  /**
   * @param {import("./server_connection.js").Connection} connection
   * @param {string} name  as in `GET /v1/models`
   */
  constructor(connection, name) {
    this.#connection = connection;
    this.#name = name;
  }

  /**
   * Yield parts of the answer as they arrive. The server stops when the caller stops reading.
   * @param {import("glm-runtime/core").Message[]} messages
   * @param {import("./settings_view.js").Options} options
   * @returns {AsyncGenerator<import("./chat.js").ChatPiece, void, undefined>}
   * @throws {ServerError}
   */
  async *chat(messages, options) {
    const body = { model: this.#name, messages, ...describe(options), stream: true, stream_options: { include_usage: true } };
    const response = await this.#connection.send("v1/chat/completions", { body, signal: options.signal });
    /** @type {import("./chat.js").ChatPiece["toolCalls"][number][]} */
    const calls = [];
    for await (const data of readEvents(response, options.signal)) {
      if (data === "[DONE]") return;
      const { error, choices, usage } = JSON.parse(data);
      if (error) throw new ServerError(error.message);
      const [{ delta = {}, finish_reason: finishReason = null } = {}] = choices;
      for (const part of delta.tool_calls ?? []) addCall(calls, part);
      const piece = { text: delta.content ?? "", reasoning: delta.reasoning_content ?? "", toolCalls: calls, finishReason };
      // The first event holds the role alone.
      if (piece.text || piece.reasoning || delta.tool_calls || finishReason || usage) yield usage ? { ...piece, usage } : piece;
    }
    throw new ServerError("the connection ended before the answer; start the server again if it has stopped.");
  }

  restart() {}

  /** @param {unknown} error */
  isRefusal(error) {
    return error instanceof ServerError && error.isRefusal;
  }

  isBroken() {
    return false;
  }

  async reopen() {}
}

/** @param {Record<string, any>} options */
function describe(options) {
  const given = OPTIONS.filter(([name]) => options[name] !== undefined).map(([name, theirs]) => [theirs, options[name]]);
  return { ...Object.fromEntries(given), ...(options.enableThinking === undefined ? {} : { chat_template_kwargs: { enable_thinking: options.enableThinking } }) };
}

/**
 * Add a part of a call: name and id come first, arguments may come in several parts.
 * @param {import("./chat.js").ChatPiece["toolCalls"][number][]} calls
 * @param {{ index: number, id?: string, function?: { name?: string, arguments?: string } }} part
 */
function addCall(calls, { index, id, function: called }) {
  const old = calls[index] ?? { id: "", name: "", arguments: "" };
  calls[index] = { id: id ?? old.id, name: called?.name ?? old.name, arguments: old.arguments + (called?.arguments ?? "") };
}

/**
 * @param {Response} response
 * @param {AbortSignal | null} [signal]
 * @returns {AsyncGenerator<string, void, undefined>}
 */
async function* readEvents(response, signal) {
  const text = /** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (response.body).pipeThrough(new TextDecoderStream());
  const reader = text.pipeThrough(new EventSourceParserStream()).getReader();
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value.data;
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw new ServerError(`the connection ended before the answer (${error}); start the server again if it has stopped.`);
  } finally {
    await reader.cancel().catch(() => {}); // the request ends, and with it the answer
  }
}
