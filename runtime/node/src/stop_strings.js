/** Finds stop strings in an answer while it arrives. A stop string may be spread over several pieces. */

/** Passes text through, and holds text back that may be the beginning of a stop string. */
export class StopStrings {
  /** @type {readonly string[]} */ #stops;
  #held = "";
  isFound = false;

  /** @param {readonly string[]} stops  non-empty strings */
  constructor(stops) {
    this.#stops = stops;
  }

  /**
   * Take new text, and return the text that can be shown. Sets `isFound` if a stop string is complete.
   * @param {string} text
   */
  add(text) {
    this.#held += text;
    const starts = this.#stops.map((stop) => this.#held.indexOf(stop)).filter((start) => start >= 0);
    if (starts.length) {
      this.isFound = true;
      const shown = this.#held.slice(0, Math.min(...starts));
      this.#held = "";
      return shown;
    }
    const safe = this.#held.length - this.#countHeld();
    const shown = this.#held.slice(0, safe);
    this.#held = this.#held.slice(safe);
    return shown;
  }

  /** Return the text that was held back, at the end of the answer. */
  flush() {
    const shown = this.#held;
    this.#held = "";
    return shown;
  }

  /** Length of the longest suffix of the text that is a prefix of a stop string. */
  #countHeld() {
    const longest = Math.max(0, ...this.#stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.#held.length); length > 0; length--) {
      const end = this.#held.slice(-length);
      if (this.#stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
