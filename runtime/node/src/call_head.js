/**
 * Recognizes what stands before the arguments of a tool call: the tool's name and the end of its line.
 *
 * As in the models' own server, blanks around the name, blank lines and a code fence are allowed.
 */

export const FENCE = "```";
const BLANKS = " \t";
const SPACES = " \t\r\n";

/**
 * The text before the opening brace of a call; without a name the text is not the head of a call.
 * @typedef {{ name: string, length: number, hasFence: boolean }} CallHead
 */

/** @type {CallHead} */
const NO_HEAD = Object.freeze({ name: "", length: 0, hasFence: false });

/**
 * Read the head at the start of a line; `null` if more text is needed to decide.
 * @param {string} text
 * @param {readonly string[]} names  names of the declared tools
 * @returns {CallHead | null}
 */
export function readHead(text, names) {
  const start = skip(text, 0, BLANKS);
  let isOpen = start === text.length;
  for (const name of names) {
    const rest = text.slice(start, start + name.length);
    if (rest.length < name.length && name.startsWith(rest)) isOpen = true;
    if (rest !== name) continue;
    const gap = readGap(text, start + name.length);
    if (gap?.length) return { ...gap, name };
    isOpen ||= gap === null;
  }
  return isOpen ? null : NO_HEAD;
}

/**
 * Read from the end of the name to the brace: a line end, blank lines, and one fence.
 * @param {string} text
 * @param {number} place
 * @returns {CallHead | null}
 */
function readGap(text, place) {
  let end = skip(text, place, BLANKS);
  if (text[end] === "\r") end++;
  if (end === text.length) return null;
  if (text[end] !== "\n") return NO_HEAD;
  end = skip(text, end, SPACES);
  const hasFence = text.startsWith(FENCE, end);
  if (hasFence) {
    const lineEnd = text.indexOf("\n", end);
    const info = text.slice(end + FENCE.length, lineEnd < 0 ? text.length : lineEnd);
    if (!/^\p{L}*[ \t\r]*$/u.test(info)) return NO_HEAD;
    if (lineEnd < 0) return null;
    end = skip(text, lineEnd, SPACES);
  }
  if (end === text.length || (!hasFence && FENCE.startsWith(text.slice(end)))) return null;
  return text[end] === "{" ? { name: "", length: end, hasFence } : NO_HEAD;
}

/**
 * @param {string} text
 * @param {number} place
 * @param {string} characters
 */
function skip(text, place, characters) {
  while (place < text.length && characters.includes(text[place])) place++;
  return place;
}
