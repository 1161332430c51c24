/**
 * Encodes text to token ids and decodes ids to text with the checkpoint's own `tokenizer.json`.
 *
 * No special tokens are added, because a rendered chat template already contains them.
 */

import { Tokenizer as Inner } from "@huggingface/tokenizers";

import { ControlMarks, hasMarks } from "./control_marks.js";
import { FolderError, PromptError, firstLine } from "./errors.js";
import { ByteDecoder, WindowDecoder } from "./stream_decoder.js";
import { readObject } from "./text_files.js";

const TOKENIZER_NAME = "tokenizer.json";

/** The tokenizer of one folder. */
export class Tokenizer {
  #inner;
  #content;
  /** The same without added tokens; made when a prompt needs it. */
  /** @type {Inner | undefined} */ #plain;
  /** @type {ControlMarks | undefined} */ #controlMarks;
  #isByteLevel;
  /** @type {Set<number>} */ #specialIds;

  /**
   * @param {Record<string, unknown>} content  the parsed tokenizer.json
   * @throws {FolderError} @huggingface/tokenizers cannot load it.
   */
  constructor(content) {
    this.#content = content;
    try {
      this.#inner = new Inner(content, {});
      const added = [...this.#inner.get_added_tokens_decoder()];
      this.#specialIds = new Set(added.filter(([, token]) => token.special).map(([id]) => id));
      const decoder = /** @type {{ type?: unknown } | null} */ (content.decoder);
      this.#isByteLevel = decoder?.type === "ByteLevel";
    } catch (error) {
      throw new FolderError(
        `@huggingface/tokenizers cannot load ${TOKENIZER_NAME} (${firstLine(error)}); export the folder again.`,
        error,
      );
    }
  }

  /**
   * The id of a token by its name; `undefined` if there is no such token.
   * @param {string} name
   */
  findId(name) {
    return this.#inner.token_to_id(name);
  }

  /**
   * Encode text. Special tokens that are written in the text become their ids.
   * @param {string} text
   * @returns {number[]}
   * @throws {PromptError} the text contains half a surrogate pair, for example from undecodable input.
   */
  encode(text) {
    requireWellFormed(text);
    return text ? encodeWith(this.#inner, text) : [];
  }

  /** Marks for the names of all added tokens, which would become control tokens. */
  get controlMarks() {
    const added = [...this.#inner.get_added_tokens_decoder().values()];
    this.#controlMarks ??= new ControlMarks(added.map((token) => token.content));
    return this.#controlMarks;
  }

  /**
   * Encode a prompt in which `controlMarks` marked what is plain text.
   * @param {string} text
   * @returns {number[]}
   * @throws {PromptError} the text contains half a surrogate pair.
   */
  encodeMarked(text) {
    if (!hasMarks(text)) return this.encode(text);
    requireWellFormed(text);
    this.#plain ??= new Inner({ ...this.#content, added_tokens: [] }, {});
    const ids = [];
    for (const [isControl, part] of this.controlMarks.divide(text)) {
      if (isControl) ids.push(/** @type {number} */ (this.#inner.token_to_id(part)));
      else if (part) ids.push(...encodeWith(this.#plain, part));
    }
    return ids;
  }

  /**
   * Decode ids to text without special tokens.
   * @param {Iterable<number>} ids
   */
  decode(ids) {
    const stream = this.stream();
    let text = "";
    for (const id of ids) text += stream.add(id);
    return text + stream.flush();
  }

  /**
   * Start to decode tokens one by one. Special tokens have no text.
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
 * Encode without special tokens around the text.
 * @param {Inner} inner
 * @param {string} text
 * @returns {number[]}
 */
function encodeWith(inner, text) {
  return [...inner.encode(text, { add_special_tokens: false }).ids];
}

/** @param {string} text */
function requireWellFormed(text) {
  // Node has isWellFormed since version 20; TypeScript declares it from ES2024 on.
  if (/** @type {string & { isWellFormed(): boolean }} */ (text).isWellFormed()) return;
  throw new PromptError(
    "the prompt is not valid Unicode: it contains half a surrogate pair; " +
      "check the encoding of the terminal or file that it comes from.",
  );
}

/**
 * @param {import("./text_files.js").Folder} folder
 * @throws {FolderError} `tokenizer.json` is missing or broken.
 */
export async function readTokenizer(folder) {
  return new Tokenizer(await readObject(folder, TOKENIZER_NAME));
}
