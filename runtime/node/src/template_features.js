/**
 * Finds which parts of OpenAI's message format a chat template reads, by rendering probes.
 *
 * Names inside a template prove nothing: the template of GLM-4-9B-chat sets a variable `tools` of its
 * own and never reads the caller's. Each probe is a short conversation with a word that no template
 * contains. The template reads what makes this word appear in the text.
 */

import { BUILT_IN } from "./dialects/all_tools.js";
import { JsonScanner, readJson } from "./dialects/json_scanner.js";
import { isObject } from "./text_files.js";

/** @typedef {import("./chat_messages.js").Message} Message */
/** @typedef {import("./chat_messages.js").Tool} Tool */

/**
 * Renders messages and tools; returns "" if the template fails on them.
 * @typedef {(messages: readonly Message[], tools?: readonly Tool[]) => string} ProbeRenderer
 */

/**
 * Which parts of OpenAI's format a template reads.
 * @typedef {object} TemplateFeatures
 * @property {boolean} tools  it writes the tools of the variable `tools`
 * @property {boolean} messageTools  it writes tools in the system message, as GLM-4-9B-chat does
 * @property {boolean} toolCalls  it writes `tool_calls` of an assistant message
 * @property {boolean} taggedCalls  it writes calls between tags, as GLM-4.5 does
 * @property {boolean} pythonCalls  it begins as ChatGLM3's, whose calls are Python calls
 * @property {readonly string[]} builtInTools  the tools of GLM-4 All Tools that it describes in the system message
 * @property {readonly string[]} ownTools  names of the tools that it writes into every prompt, as GLM-Z1-Rumination does
 * @property {boolean} metadata  it writes the tool's name in `metadata`, as GLM-4-0414 does
 * @property {boolean} toolRole  it has a format of its own for messages of the role `tool`
 */

// Digits, because a template may change letters.
const [NAME, KEY, VALUE, RESULT] = ["7306418520931", "7306418520932", "7306418520933", "7306418520934"];
const TOOL_LIST = /\[\s*\{\s*"name"\s*:/g;
const QUESTION = Object.freeze({ role: "user", content: "?" });
const PARAMETERS = { type: "object", properties: {} };
const TOOL = { type: "function", function: { name: NAME, description: "?", parameters: PARAMETERS } };

/**
 * Render probes, and look for their words in the texts.
 * @param {ProbeRenderer} render
 * @returns {TemplateFeatures}
 */
export function findFeatures(render) {
  return {
    tools: render([QUESTION], [TOOL]).includes(NAME),
    messageTools: render([{ role: "system", content: "", tools: [TOOL] }, QUESTION]).includes(NAME),
    toolCalls: render(makeCall()).includes(NAME),
    taggedCalls: render(makeCall()).includes(`<arg_key>${KEY}</arg_key>`),
    pythonCalls: render([QUESTION]).startsWith("[gMASK]sop"),
    builtInTools: BUILT_IN.filter((name) => describes(render, name)),
    ownTools: findOwnTools(render),
    metadata: render([QUESTION, { role: "assistant", metadata: NAME, content: "{}" }]).includes(NAME),
    toolRole: hasToolRole(render),
  };
}

/**
 * Names of the tools that a template writes into every prompt, as a list of JSON objects.
 * @param {ProbeRenderer} render
 * @returns {string[]}
 */
export function findOwnTools(render) {
  const text = render([QUESTION]);
  for (const { index } of text.matchAll(TOOL_LIST)) {
    const tools = readList(text, index);
    if (tools?.every((one) => isObject(one) && typeof one.name === "string")) return tools.map(({ name }) => name);
  }
  return [];
}

/**
 * The JSON list that begins at an index of a text.
 * @param {string} text
 * @param {number} begin
 * @returns {any[] | undefined}
 */
function readList(text, begin) {
  const end = new JsonScanner("[").findEnd(text.slice(begin));
  const found = end === null ? undefined : readJson(text.slice(begin, begin + end));
  return Array.isArray(found) ? found : undefined;
}

/**
 * Whether a template describes a tool of this type in its own words.
 * @param {ProbeRenderer} render
 * @param {string} type
 */
function describes(render, type) {
  return render([{ role: "system", content: "", tools: [{ type }] }, QUESTION]).includes(`## ${type}\n`);
}

/**
 * A template that writes the name of any role has no format of its own for `tool`.
 * @param {ProbeRenderer} render
 */
function hasToolRole(render) {
  const text = render(makeCall());
  if (!text.includes(RESULT)) return false;
  return text !== render(makeCall("observation")).replaceAll("observation", "tool");
}

/**
 * @param {string} [role]
 * @returns {Message[]}
 */
function makeCall(role = "tool") {
  const call = { id: "call_0", type: "function", function: { name: NAME, arguments: { [KEY]: VALUE } } };
  const answer = { role: "assistant", content: "", tool_calls: [call] };
  return [QUESTION, answer, { role, tool_call_id: "call_0", content: RESULT }];
}
