/**
 * Text to token ids and back, as the checkpoint's own `tokenizer.json` says.
 *
 * Adds no special tokens: a rendered chat template already holds them.
 */

import { Tokenizer as Inner } from "@huggingface/tokenizers";

import { FolderError, PromptError, firstLine } from "./errors.js";
import { ByteDecoder, WindowDecoder } from "./stream_decoder.js";
import { readObject } from "./text_files.js";

const TOKENIZER_NAME = "tokenizer.json";

/** A tokenizer of one folder. */
export class Tokenizer {
  #inner;
  #isByteLevel;
  /** @type {Set<number>} */ #specialIds;

  /**
   * @param {Record<string, unknown>} content  of tokenizer.json
   * @throws {FolderError} it is not what @huggingface/tokenizers loads.
   */
  constructor(content) {
    try {
      this.#inner = new Inner(content, {});
      const added = [...this.#inner.get_added_tokens_decoder()];
      this.#specialIds = new Set(added.filter(([, token]) => token.special).map(([id]) => id));
      const decoder = /** @type {{ type?: unknown } | null} */ (content.decoder);
      this.#isByteLevel = decoder?.type === "ByteLevel";
    } catch (error) {
      throw new FolderError(
        `${TOKENIZER_NAME} is not what @huggingface/tokenizers loads (${firstLine(error)}); export the folder again.`,
        error,
      );
    }
  }

  /**
   * The id of a token by its name; `undefined` where there is no such token.
   * @param {string} name
   */
  findId(name) {
    return this.#inner.token_to_id(name);
  }

  /**
   * Turn text into ids; special tokens written in the text become their ids.
   * @param {string} text
   * @returns {number[]}
   * @throws {PromptError} the text holds half a surrogate pair, as undecodable input does.
   */
  encode(text) {
    // Node has isWellFormed since version 20; TypeScript's library for it comes with ES2024.
    if (!(/** @type {string & { isWellFormed(): boolean }} */ (text).isWellFormed())) {
      throw new PromptError(
        "the prompt is not valid Unicode where whole characters are expected (half a surrogate pair is in it); " +
          "check the encoding of the terminal or file it comes from.",
      );
    }
    return text ? [...this.#inner.encode(text, { add_special_tokens: false }).ids] : [];
  }

  /**
   * Turn ids into text, leaving special tokens out.
   * @param {Iterable<number>} ids
   */
  decode(ids) {
    const stream = this.stream();
    let text = "";
    for (const id of ids) text += stream.add(id);
    return text + stream.flush();
  }

  /**
   * Start decoding tokens one by one; special tokens give no text.
   * @returns {import("./stream_decoder.js").TokenDecoder}
   */
  stream() {
    const decoder = this.#isByteLevel ? new ByteDecoder(this.#inner) : new WindowDecoder(this.#inner);
    const special = this.#specialIds;
    return {
      add: (token) => (special.has(token) ? "" : decoder.add(token)),
      flush: () => decoder.flush(),
      get isComplete() {
        return decoder.isComplete;
      },
    };
  }
}

/**
 * @param {import("./text_files.js").Folder} folder
 * @throws {FolderError} `tokenizer.json` is missing or broken.
 */
export async function readTokenizer(folder) {
  return new Tokenizer(await readObject(folder, TOKENIZER_NAME));
}
