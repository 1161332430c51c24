/**
 * numpy's random generator, PCG64 seeded by SeedSequence, so that a seed gives the same numbers as in Python.
 *
 * Sources: O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for
 * Random Number Generation" (2014), the variant XSL-RR 128/64; SeedSequence after O'Neill,
 * "Developing a seed_seq Alternative" (2015), with the constants from numpy's documentation.
 */

const MASK_64 = (1n << 64n) - 1n;
const MASK_128 = (1n << 128n) - 1n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n; // the default multiplier of 128-bit PCG
const POOL_SIZE = 4; // 32-bit words

/** Draws numbers in [0, 1). */
export class Pcg64 {
  /** @type {bigint} */ #state;
  /** @type {bigint} */ #increment;

  /** @param {number | bigint | null} seed  a non-negative integer; `null` takes a random seed from the system */
  constructor(seed) {
    const words = generateWords(seed === null ? drawEntropy() : splitSeed(BigInt(seed)), 8);
    const halves = [0, 2, 4, 6].map((i) => BigInt(words[i]) | (BigInt(words[i + 1]) << 32n));
    const start = (halves[0] << 64n) | halves[1];
    this.#increment = ((((halves[2] << 64n) | halves[3]) << 1n) | 1n) & MASK_128;
    this.#state = (this.#increment + start) & MASK_128;
    this.#step();
  }

  /** A multiple of 2^-53 in [0, 1). */
  random() {
    this.#step();
    const folded = (this.#state >> 64n) ^ (this.#state & MASK_64);
    const turn = this.#state >> 122n;
    const turned = ((folded >> turn) | (folded << (64n - turn))) & MASK_64;
    return Number(turned >> 11n) / 2 ** 53;
  }

  #step() {
    this.#state = (this.#state * MULTIPLIER + this.#increment) & MASK_128;
  }
}

function drawEntropy() {
  return crypto.getRandomValues(new Uint32Array(POOL_SIZE));
}

/** @param {bigint} seed */
function splitSeed(seed) {
  const words = [];
  for (let rest = seed; rest > 0n || !words.length; rest >>= 32n) words.push(Number(rest & 0xffffffffn));
  return Uint32Array.from(words);
}

/**
 * Mix entropy into a pool, then generate words from the pool.
 * @param {Uint32Array} entropy
 * @param {number} count
 */
function generateWords(entropy, count) {
  const pool = new Uint32Array(POOL_SIZE);
  const absorb = makeHash(0x43b0d7e5, 0x931e8875);
  for (let i = 0; i < POOL_SIZE; i++) pool[i] = absorb(entropy[i] ?? 0);
  for (let from = 0; from < POOL_SIZE; from++) {
    for (let to = 0; to < POOL_SIZE; to++) if (from !== to) pool[to] = mix(pool[to], absorb(pool[from]));
  }
  for (let from = POOL_SIZE; from < entropy.length; from++) {
    for (let to = 0; to < POOL_SIZE; to++) pool[to] = mix(pool[to], absorb(entropy[from]));
  }
  const emit = makeHash(0x8b51f9dd, 0x58f38ded);
  return Uint32Array.from({ length: count }, (_, i) => emit(pool[i % POOL_SIZE]));
}

/**
 * A hash function whose constant changes with every call.
 * @param {number} constant
 * @param {number} multiplier
 * @returns {(value: number) => number}
 */
function makeHash(constant, multiplier) {
  return (value) => {
    const salted = value ^ constant;
    constant = Math.imul(constant, multiplier);
    return foldDown(Math.imul(salted, constant));
  };
}

/**
 * @param {number} left
 * @param {number} right
 */
function mix(left, right) {
  return foldDown(Math.imul(left, 0xca01f9dd) - Math.imul(right, 0x4973f715));
}

/** @param {number} value */
function foldDown(value) {
  return (value ^ ((value >>> 0) >>> 16)) >>> 0;
}
