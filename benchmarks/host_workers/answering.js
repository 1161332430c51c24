/** What answering.py's `serve` does, in Node: load, say so, answer every line. */

import { createInterface } from "node:readline";

/**
 * @param {() => Promise<(prompt: number[], count: number) => AsyncIterable<number>>} load
 *   gives a function that answers greedily, token by token
 */
export async function serve(load) {
  let started = performance.now();
  const generate = await load();
  say({ load_seconds: (performance.now() - started) / 1000 });
  for await (const line of createInterface({ input: process.stdin })) {
    const { prompt, num_tokens: count } = JSON.parse(line);
    const tokens = [];
    started = performance.now();
    let first = started;
    for await (const token of generate(prompt, count)) {
      if (!tokens.length) first = performance.now();
      tokens.push(token);
    }
    const ended = performance.now();
    say({
      first_token_seconds: (first - started) / 1000,
      decode_seconds: (ended - first) / 1000,
      tokens,
    });
  }
}

/** @param {object} message */
function say(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}
