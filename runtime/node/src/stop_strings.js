/** Stop strings: text that ends an answer and must not be shown, even when it arrives in parts. */

/** Passes text through, holding back what may be the beginning of a stop string. */
export class StopStrings {
  /** @type {readonly string[]} */ #stops;
  #held = "";
  isFound = false;

  /** @param {readonly string[]} stops  none of them empty */
  constructor(stops) {
    this.#stops = stops;
  }

  /**
   * Take new text, return what is safe to show; sets `isFound` at a stop string.
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

  /** Return what was held back, when no more text comes. */
  flush() {
    const shown = this.#held;
    this.#held = "";
    return shown;
  }

  /** Length of the longest end of the text that begins a stop string. */
  #countHeld() {
    const longest = Math.max(0, ...this.#stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.#held.length); length > 0; length--) {
      const end = this.#held.slice(-length);
      if (this.#stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
