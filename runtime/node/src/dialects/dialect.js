/**
 * What a dialect of tool calls tells the parser: where a call begins, and how to read it.
 *
 * Read `tool_calls.js` for the parser, and `choice.js` for how the dialect of a template is found.
 */

export const FENCE = "```";
export const BLANKS = " \t";
export const SPACES = " \t\r\n";

/**
 * The text before the body of a call; without a name the text is not the head of a call.
 * @typedef {{ name: string, length: number, hasFence: boolean }} CallHead
 */

/** @type {CallHead} */
export const NO_HEAD = Object.freeze({ name: "", length: 0, hasFence: false });

/**
 * Reads the body of one call while it arrives.
 * @typedef {object} CallBody
 * @property {string} arguments  the arguments as JSON text, when the body is complete
 * @property {boolean} isBroken  whether the text cannot be a call; set as early as possible
 * @property {(text: string) => number | null} read  takes new text; returns how many characters of it
 *   end the body, or `null` if it goes on
 * @property {() => boolean} end  whether the body is complete where the answer ends
 */

/**
 * One format of tool calls, with the declared tools.
 * @typedef {object} CallDialect
 * @property {string} mark  text with which a call may begin inside a line; empty if calls begin lines
 * @property {string} markText  how the mark is shown where it begins no call; a line end if it ends the line
 * @property {readonly string[]} endings  texts with which a call may end; empty if any text may end one
 * @property {(text: string, isFirst: boolean) => CallHead | null} readHead  reads the head of a call at a
 *   line start or a mark; `null` if more text is needed
 * @property {(name: string) => CallBody} startBody
 */

/**
 * The next place whose character is not one of `characters`.
 * @param {string} text
 * @param {number} place
 * @param {string} characters
 */
export function skip(text, place, characters) {
  while (place < text.length && characters.includes(text[place])) place++;
  return place;
}

/**
 * Which of `wanted` stands at a place; "" for none, `null` if more text is needed.
 * @param {string} text
 * @param {number} place
 * @param {readonly string[]} wanted
 * @returns {string | null}
 */
export function matchOne(text, place, wanted) {
  const found = wanted.find((one) => text.startsWith(one, place));
  if (found !== undefined) return found;
  const rest = text.slice(place);
  return wanted.some((one) => one.startsWith(rest)) ? null : "";
}
