/** Turns the text of an argument into JSON, by the types that a tool's JSON schema allows for it. */

import { isObject } from "../text_files.js";
import { strip } from "../white_space.js";
import { readJson } from "./json_scanner.js";

const MAX_SCHEMAS = 200; // a schema may refer to itself

/**
 * The types that a schema of parameters allows for a key; `null` if it does not say.
 * @param {unknown} parameters
 * @param {string} key
 * @returns {Set<string> | null}
 */
export function listTypes(parameters, key) {
  /** @type {Set<string>} */
  const found = new Set();
  const waiting = [get(get(parameters, "properties"), key)];
  for (let count = 0; count < MAX_SCHEMAS; count++) {
    if (!waiting.length) return found;
    const [types, alternatives] = readSchema(waiting.pop(), parameters);
    if (!types.length && !alternatives.length) return null;
    for (const type of types) found.add(type);
    waiting.push(...alternatives);
  }
  return null;
}

/**
 * The JSON of an argument: its own text if it is JSON and no string, or a string.
 *
 * Where a string is allowed, only a value of another allowed type is taken as JSON.
 * @param {string} text
 * @param {Set<string> | null} types
 */
export function writeValue(text, types) {
  const kind = findKind(readJson(text));
  if (kind === null || (types?.has("string") && !types.has(kind))) return JSON.stringify(text);
  return strip(text);
}

/**
 * The JSON type of a value; `null` for none and for a string.
 * @param {unknown} value
 */
function findKind(value) {
  if (value === undefined || typeof value === "string") return null;
  if (value === null) return "null";
  if (typeof value !== "object") return typeof value;
  return Array.isArray(value) ? "array" : "object";
}

/**
 * The types that a schema names, or the schemas of which one must hold.
 * @param {unknown} schema
 * @param {unknown} root
 * @returns {[types: string[], alternatives: unknown[]]}
 */
function readSchema(schema, root) {
  const type = get(schema, "type");
  if (typeof type === "string" || Array.isArray(type)) {
    return [[type].flat().map((one) => (one === "integer" ? "number" : String(one))), []];
  }
  const reference = get(schema, "$ref");
  if (typeof reference === "string") {
    return [[], [reference.replace(/^#\//, "").split("/").reduce(get, root)]];
  }
  const values = list(get(schema, "enum"));
  if (values.length && values.every((one) => typeof one === "string")) return [["string"], []];
  return [[], [...list(get(schema, "anyOf")), ...list(get(schema, "oneOf"))]];
}

/**
 * @param {unknown} value
 * @param {string} key
 * @returns {unknown}
 */
function get(value, key) {
  return isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined;
}

/**
 * @param {unknown} value
 * @returns {unknown[]}
 */
function list(value) {
  return Array.isArray(value) ? value : [];
}
