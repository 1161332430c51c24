/** The line below an answer: number of tokens, speed, time to the first token, and how the answer ended. */

/** @typedef {{ completion_tokens: number, prompt_tokens: number, prompt_tokens_details?: { cached_tokens?: number } }} Usage  as a server counts */

const LEAST_SECONDS = 0.05; // in less time parts arrive together, and the quotient says nothing

/** Measures one answer, from its construction on. */
export class Statistics {
  #start = performance.now();
  /** @type {number[]} */ #times = []; // of each piece, in milliseconds
  /** @type {Usage | null} */ #usage = null;
  #ending = "";

  /** @param {{ text: string, reasoning: string, finishReason: string | null, usage?: Usage }} piece */
  add({ finishReason, usage }) {
    if (usage) this.#usage = usage;
    else this.#times.push(performance.now());
    if (finishReason === "length") this.#ending = "reached the length limit";
  }

  /** @param {string} ending */
  end(ending) {
    this.#ending = ending;
  }

  toString() {
    const times = this.#times;
    const count = this.#usage?.completion_tokens ?? times.length;
    if (!count || !times.length) return this.#ending;
    const seconds = (times[times.length - 1] - times[0]) / 1000;
    const facts = [`${count} ${count === 1 ? "token" : "tokens"}`];
    if (seconds > LEAST_SECONDS) facts.push(`${((count - 1) / seconds).toFixed(1)} tokens/s`);
    facts.push(`first token after ${((times[0] - this.#start) / 1000).toFixed(2)} s`);
    if (this.#usage) facts.push(describePrompt(this.#usage));
    if (this.#ending) facts.push(this.#ending);
    return facts.join(", ");
  }
}

/** @param {Usage} usage */
function describePrompt({ prompt_tokens: count, prompt_tokens_details: details }) {
  return `${details?.cached_tokens ?? 0} of ${count} prompt tokens cached`;
}
