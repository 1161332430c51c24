/**
 * Limits of one rendering: of its time, and of the size and depth of every value that it makes.
 *
 * The numbers are those of the Python runtime's `template_limits.py`.
 */

const MAX_CHARACTERS = 20_000_000;
const MAX_STEPS = 2_000_000; // an interpreter's step is smaller than one in Python
const MAX_MADE = 250_000_000; // characters and weights of all values together, also of dropped ones
const MAX_ITEMS = 1_000_000; // of nested lists, each counted as often as it occurs
const MAX_DEPTH = 200;
const MAX_MILLISECONDS = 10_000;
const MAX_WIDTH = 10_000;
const MAX_PATTERN = 1000; // characters of a date format
const MAX_RANGE = 100_000; // as in Jinja's sandbox
const ITEM_WEIGHT = 50; // of an object, in characters of two bytes

/**
 * A value of the interpreter, for example a `StringValue`; the library does not export its classes.
 * @typedef {{ type: string, value: any }} Value
 * @typedef {{ characters: number, items: number, depth: number }} Size
 */

const SCALAR = { characters: 1, items: 1, depth: 1 };

/** The template takes too much time or memory, or uses a value in a way whose cost is unknown. */
export class TemplateLimitError extends Error {}

/** The steps of one rendering so far, and the size of what it has made. */
export class Steps {
  #count = 0;
  #made = 0;
  #started = Date.now();
  /** @type {WeakMap<object, Size>} */ #sizes = new WeakMap();

  /** Count one step. */
  take() {
    this.#count += 1;
    if (this.#count > MAX_STEPS) throw new TemplateLimitError(`it takes more than ${MAX_STEPS} steps`);
    if (this.#count % 16 === 0 && Date.now() - this.#started > MAX_MILLISECONDS) {
      throw new TemplateLimitError(`it takes more than ${MAX_MILLISECONDS / 1000} seconds`);
    }
  }

  /**
   * Measure a value; a value that was measured before is not counted again.
   * @param {Value} value
   * @param {number} [depth]
   * @returns {Size}
   */
  measure(value, depth = 1) {
    const isText = value?.type === "StringValue";
    if (!isText && !isContainer(value)) return SCALAR;
    const known = this.#sizes.get(value);
    if (known) return known;
    if (depth > MAX_DEPTH) throw new TemplateLimitError(`it nests values deeper than ${MAX_DEPTH}`);
    const size = isText ? { ...SCALAR, characters: value.value.length } : this.#addUp(value, depth);
    requireSize(size);
    this.#made += (isText ? size.characters : 0) + ITEM_WEIGHT;
    if (this.#made > MAX_MADE) throw new TemplateLimitError(`it makes more than ${MAX_MADE} characters in all`);
    this.#sizes.set(value, size);
    return size;
  }

  /**
   * @param {Value} value
   * @param {number} depth
   */
  #addUp(value, depth) {
    const size = { characters: 2, items: 1, depth: 1 };
    const isList = Array.isArray(value.value);
    for (const entry of value.value) {
      const part = isList ? entry : entry[1];
      requireValue(part);
      const found = this.measure(part, depth + 1);
      size.characters += found.characters + (isList ? 0 : entry[0].length);
      size.items += found.items;
      size.depth = Math.max(size.depth, found.depth + 1);
      if (size.items > MAX_ITEMS) break;
    }
    this.#made += ITEM_WEIGHT * (isList ? value.value.length : value.value.size);
    return size;
  }
}

/**
 * Refuse a namespace where a value is expected: its size changes, and it may contain itself.
 * @param {Value | undefined} value
 */
export function requireValue(value) {
  if (value?.type === "NamespaceValue") throw new TemplateLimitError("it uses a namespace as a value");
}

/**
 * Check a filter before it runs.
 * @param {Steps} steps
 * @param {string} name
 * @param {Value} operand
 * @param {[Value[], Map<string, Value>]} given  positional and named arguments
 */
export function checkFilter(steps, name, operand, [positional, named]) {
  const size = steps.measure(operand);
  const values = [...positional, ...named.values()];
  const widths = values.map(measureWidth);
  const width = Math.max(0, ...widths);
  if (name === "tojson") {
    requireWidth(name, width);
    requireLength(size.characters + size.items * (2 + size.depth * width));
  } else if (name === "indent") {
    requireWidth(name, width);
    if (operand.type === "StringValue") requireLength(countParts(operand.value, "\n") * Math.max(4, width));
  } else if (name === "join") {
    const count = operand.type === "StringValue" ? size.characters : size.items;
    requireItems(count);
    requireLength(size.characters + count * width);
  } else if (name === "replace" && operand.type === "StringValue") {
    checkReplace(operand.value, positional);
  }
}

/**
 * Check a method of a text before it runs.
 * @param {string} text
 * @param {string} name
 * @param {Value[]} given
 */
export function checkMethod(text, name, given) {
  if (name === "replace") checkReplace(text, given);
  if (name !== "split") return;
  const separator = given[0]?.type === "StringValue" ? given[0].value : "";
  if (separator) requireItems(countParts(text, separator));
  else if (text.length > 2 * MAX_ITEMS) requireItems(countWords(text));
}

/**
 * The numbers of `range`, at most as many as Jinja's sandbox allows.
 * @param {number} start
 * @param {number} [stop]
 * @param {number} [step]
 */
export function boundedRange(start, stop, step = 1) {
  const [first, end] = stop === undefined ? [0, start] : [start, stop];
  if (step === 0) throw new Error("range() step must not be zero");
  const count = Math.max(0, Math.ceil((end - first) / step));
  if (!(count <= MAX_RANGE)) throw new TemplateLimitError(`range() is longer than ${MAX_RANGE}`);
  return Array.from({ length: count }, (_, index) => first + index * step);
}

/** @param {unknown} pattern */
export function requireDateFormat(pattern) {
  if (typeof pattern === "string" && pattern.length <= MAX_PATTERN) return;
  throw new TemplateLimitError(`it formats a date by more than ${MAX_PATTERN} characters`);
}

/** @param {Value | undefined} value */
function isContainer(value) {
  return Array.isArray(value?.value) || (value?.value instanceof Map && value.type !== "NamespaceValue");
}

/**
 * The number of a value, or the length of a text or of the longest text in a list.
 * @param {Value} value
 * @returns {number}
 */
function measureWidth(value) {
  if (typeof value?.value === "number") return value.value;
  if (typeof value?.value === "string") return value.value.length;
  return Array.isArray(value?.value) ? Math.max(0, ...value.value.slice(0, 9).map(measureWidth)) : 0;
}

/**
 * @param {string} text
 * @param {Value[]} given
 */
function checkReplace(text, [sought, made]) {
  if (typeof sought?.value !== "string" || typeof made?.value !== "string") return; // the library refuses it
  const most = Math.floor(text.length / Math.max(1, sought.value.length)) + 1;
  if (most * made.value.length <= MAX_CHARACTERS) return;
  const found = sought.value ? countParts(text, sought.value) : text.length + 1;
  requireLength(found * made.value.length);
}

/**
 * @param {string} text
 * @param {string} separator
 */
function countParts(text, separator) {
  let count = 1;
  for (let at = text.indexOf(separator); at >= 0; at = text.indexOf(separator, at + separator.length)) count += 1;
  return count;
}

/** @param {string} text */
function countWords(text) {
  const words = /\S+/g;
  let count = 0;
  while (words.test(text)) count += 1;
  return count;
}

/** @param {Size} size */
function requireSize(size) {
  requireItems(size.items);
  requireLength(size.characters + size.items);
  if (size.depth > MAX_DEPTH) throw new TemplateLimitError(`it nests values deeper than ${MAX_DEPTH}`);
}

/** @param {number} characters */
function requireLength(characters) {
  if (characters > MAX_CHARACTERS) {
    throw new TemplateLimitError(`it makes a text or list longer than ${MAX_CHARACTERS}`);
  }
}

/** @param {number} count */
function requireItems(count) {
  if (count > MAX_ITEMS) throw new TemplateLimitError(`it makes lists of more than ${MAX_ITEMS} items`);
}

/**
 * @param {string} name
 * @param {number} width
 */
function requireWidth(name, width) {
  if (width > MAX_WIDTH) throw new TemplateLimitError(`${name} is given a width above ${MAX_WIDTH}`);
}
