/**
 * Decodes tokens one by one, and returns whole characters only.
 *
 * One Chinese character or emoji may be spread over several tokens. Byte-level BPE, which GLM models
 * use, is decoded byte by byte. Any other tokenizer is decoded by its `decode`, a few tokens at a time.
 */

const REPLACEMENT = "\uFFFD";
const LONGEST_CHARACTER_BYTES = 4; // RFC 3629, section 3

// The names of its byte tokens.
const BYTE_ORDER_MARK = ["<0xEF>", "<0xBB>", "<0xBF>"];

/**
 * The methods of @huggingface/tokenizers that are used here. Its own types fail with Node's module resolution.
 * @typedef {object} Inner
 * @property {(id: number) => string | undefined} id_to_token
 * @property {(ids: number[], options: { skip_special_tokens: boolean }) => string} decode
 */

/** @typedef {{ add(token: number): string, flush(): string, readonly isComplete: boolean }} TokenDecoder */

/** Decodes byte-level BPE, where every character of a token's name stands for one byte. */
export class ByteDecoder {
  #inner;
  #bytes = new TextDecoder("utf-8", { ignoreBOM: true });
  #missing = 0; // number of bytes that the last character still needs

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
 * Decodes any tokenizer: decodes the last tokens with and without the new one, and returns the difference.
 *
 * The decoded window begins with tokens that were already returned, because some decoders treat the
 * first token of a text differently: SentencePiece removes its leading space.
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
    // An incomplete character has fewer tokens than bytes. With more tokens, U+FFFD is final.
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
    if (!tokens.length) return "";
    return this.#inner.decode(this.#doubleByteOrderMarks(tokens), { skip_special_tokens: false });
  }

  /**
   * Repeat a byte order mark at the beginning of a run of byte tokens, because the decoder drops one there.
   * Seen in @huggingface/tokenizers 0.2.0; remove this when its ByteFallback keeps the mark.
   * @param {number[]} tokens
   */
  #doubleByteOrderMarks(tokens) {
    const names = tokens.map((token) => this.#inner.id_to_token(token));
    return tokens.flatMap((token, index) => {
      const isFirst = !isByteName(names[index - 1]);
      const isMark = BYTE_ORDER_MARK.every((name, offset) => names[index + offset] === name);
      return isFirst && isMark ? [...tokens.slice(index, index + BYTE_ORDER_MARK.length), token] : [token];
    });
  }
}

/** @param {string | undefined} name */
function isByteName(name) {
  return name !== undefined && /^<0x[0-9A-F]{2}>$/.test(name);
}

/**
 * Number of bytes that a UTF-8 character still needs after this byte.
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
 * GPT-2's table: printable Latin-1 bytes are mapped to themselves, the others to U+0100 and following.
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
  // The name of an added token is plain text; it may contain characters that are not in the table.
  return bytes.includes(-1) ? new TextEncoder().encode(name) : Uint8Array.from(bytes);
}
