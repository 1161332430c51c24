/**
 * Finds which parts of OpenAI's message format a chat template reads, by rendering probes.
 *
 * Names inside a template prove nothing: the template of GLM-4-9B-chat sets a variable `tools` of its
 * own and never reads the caller's. Each probe is a short conversation with a word that no template
 * contains. The template reads what makes this word appear in the text.
 */

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
 * @property {boolean} metadata  it writes the tool's name in `metadata`, as GLM-4-0414 does
 * @property {boolean} toolRole  it has a format of its own for messages of the role `tool`
 */

// Digits, because a template may change letters.
const [NAME, RESULT] = ["7306418520931", "7306418520934"];
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
    metadata: render([QUESTION, { role: "assistant", metadata: NAME, content: "{}" }]).includes(NAME),
    toolRole: hasToolRole(render),
  };
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
  const call = { id: "call_0", type: "function", function: { name: NAME, arguments: {} } };
  const answer = { role: "assistant", content: "", tool_calls: [call] };
  return [QUESTION, answer, { role, tool_call_id: "call_0", content: RESULT }];
}
