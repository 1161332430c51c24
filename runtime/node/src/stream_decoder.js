/**
 * Tokens to text while they arrive: text comes out at whole characters only.
 *
 * One Chinese character or emoji may be spread over several tokens. Byte-level BPE (GLM's own) is
 * decoded byte by byte, exactly; any other tokenizer through its `decode`, over a few tokens.
 */

const REPLACEMENT = "\uFFFD";
const LONGEST_CHARACTER_BYTES = 4; // RFC 3629, section 3

/**
 * What is needed of @huggingface/tokenizers; its own types refuse Node's module resolution.
 * @typedef {object} Inner
 * @property {(id: number) => string | undefined} id_to_token
 * @property {(ids: number[], options: { skip_special_tokens: boolean }) => string} decode
 */

/** @typedef {{ add(token: number): string, flush(): string, readonly isComplete: boolean }} TokenDecoder */

/** Byte-level BPE: every character of a token's name stands for one byte. */
export class ByteDecoder {
  #inner;
  #bytes = new TextDecoder("utf-8", { ignoreBOM: true });
  #missing = 0; // bytes that the last character still wants

  /** @param {Inner} inner */
  constructor(inner) {
    this.#inner = inner;
  }

  get isComplete() {
    return this.#missing === 0;
  }

  /** @param {number} token */
  add(token) {
    const name = this.#inner.id_to_token(token);
    if (name === undefined) return "";
    const bytes = nameToBytes(name);
    for (const byte of bytes) this.#missing = countMissing(byte, this.#missing);
    return this.#bytes.decode(bytes, { stream: true });
  }

  flush() {
    this.#missing = 0;
    return this.#bytes.decode();
  }
}

/**
 * Any tokenizer: decode the last tokens with and without the new one, give the difference.
 *
 * The window begins at tokens already shown, since some decoders treat the first token of a text
 * differently (SentencePiece drops its leading space).
 */
export class WindowDecoder {
  #inner;
  /** @type {number[]} */ #shown = [];
  /** @type {number[]} */ #pending = [];

  /** @param {Inner} inner */
  constructor(inner) {
    this.#inner = inner;
  }

  get isComplete() {
    return this.#pending.length === 0;
  }

  /** @param {number} token */
  add(token) {
    this.#pending.push(token);
    const text = this.#readPending();
    // An unfinished character has fewer tokens than bytes; a longer wait is for nothing.
    const isUnfinished = text.endsWith(REPLACEMENT) && this.#pending.length < LONGEST_CHARACTER_BYTES;
    return isUnfinished ? "" : this.#show(text);
  }

  flush() {
    return this.#show(this.#readPending());
  }

  /** @param {string} text */
  #show(text) {
    this.#shown = this.#pending;
    this.#pending = [];
    return text;
  }

  #readPending() {
    const before = this.#decode(this.#shown);
    return this.#decode([...this.#shown, ...this.#pending]).slice(before.length);
  }

  /** @param {number[]} tokens */
  #decode(tokens) {
    return tokens.length ? this.#inner.decode(tokens, { skip_special_tokens: false }) : "";
  }
}

/**
 * How many bytes a character still wants after this one.
 * @param {number} byte
 * @param {number} missing
 */
function countMissing(byte, missing) {
  if (byte >= 0xf0) return 3;
  if (byte >= 0xe0) return 2;
  if (byte >= 0xc0) return 1;
  return byte >= 0x80 ? Math.max(0, missing - 1) : 0;
}

/**
 * GPT-2's table: printable Latin-1 bytes stand for themselves, the others follow from U+0100.
 * Source: openai/gpt-2, encoder.py, bytes_to_unicode; tokenizers' ByteLevel uses the same.
 */
function makeByteTable() {
  /** @type {Map<string, number>} */
  const table = new Map();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const isPrintable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    table.set(String.fromCharCode(isPrintable ? byte : next++), byte);
  }
  return table;
}

const BYTE_OF_CHARACTER = makeByteTable();

/** @param {string} name */
function nameToBytes(name) {
  const bytes = Array.from(name, (character) => BYTE_OF_CHARACTER.get(character) ?? -1);
  // An added token such as "<think>" with a space or Chinese is plain text.
  return bytes.includes(-1) ? new TextEncoder().encode(name) : Uint8Array.from(bytes);
}
