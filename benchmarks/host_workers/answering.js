/** What answering.py's `serve` does, in JavaScript: load, say so, answer every line. */

import { createInterface } from "node:readline";

/**
 * @typedef {object} Answer
 * @property {number} first_token_seconds  from the call to the first token
 * @property {number} decode_seconds  from there to the last
 * @property {number[]} tokens
 */

/** @param {() => Promise<(prompt: number[], count: number) => Promise<Answer>>} load */
export async function serve(load) {
  const started = performance.now();
  const answer = await load();
  say({ load_seconds: (performance.now() - started) / 1000 });
  for await (const line of createInterface({ input: process.stdin })) {
    const { prompt, num_tokens: count } = JSON.parse(line);
    say(await answer(prompt, count));
  }
}

/**
 * Answer once. Stands alone, so that it can be handed to a page.
 * @param {{ generate: Function }} model  of runtime/node or runtime/web
 * @param {number[]} prompt
 * @param {number} count
 * @param {object} [options]  more of `generate`
 * @returns {Promise<Answer>}
 */
export async function measure(model, prompt, count, options = {}) {
  const tokens = [];
  const started = performance.now();
  let first = started;
  for await (const piece of model.generate(prompt, { temperature: 0, maxNewTokens: count, ...options })) {
    if (!tokens.length) first = performance.now();
    tokens.push(piece.tokenId);
  }
  const ended = performance.now();
  return { first_token_seconds: (first - started) / 1000, decode_seconds: (ended - first) / 1000, tokens };
}

/** @param {object} message */
function say(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}
