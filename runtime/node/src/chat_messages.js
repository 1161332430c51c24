/**
 * Converts messages in OpenAI's format to the format that a GLM chat template expects.
 *
 * The template of GLM-4-0414 expects a tool's result in the role `observation`, and a tool call as an
 * assistant message whose `metadata` is the tool's name. Newer templates read `tool_calls` themselves.
 */

import { PromptError } from "./errors.js";

/**
 * A role, a content, and other fields that the template reads (tool calls, metadata).
 * @typedef {{ role: string, content?: unknown, tool_calls?: unknown, [key: string]: unknown }} Message
 */

/**
 * A function that the model may call: in OpenAI's format, or the object in its field `function` alone.
 * @typedef {Record<string, unknown>} Tool
 */

/**
 * @typedef {object} ChatOptions
 * @property {readonly Tool[]} [tools]  tools that the model may call
 * @property {boolean} [enableThinking]  the template variable `enable_thinking`; by default it is not set
 */

/**
 * Which parts of OpenAI's format a template reads.
 * @typedef {object} TemplateFeatures
 * @property {boolean} toolRole  messages of the role `tool`
 * @property {boolean} toolCalls  the field `tool_calls` of an assistant message
 * @property {boolean} metadata  the field `metadata` of a message
 * @property {boolean} tools  the variable `tools`
 * @property {boolean} messageTools  the field `tools` of the system message
 */

/**
 * Convert roles, tools and tool calls for a template that does not read OpenAI's format.
 * @param {readonly Message[]} messages  not modified
 * @param {readonly Tool[]} tools
 * @param {TemplateFeatures} features
 * @returns {Message[]}
 * @throws {PromptError} a message is not an object, or a tool call has no name.
 */
export function adaptMessages(messages, tools, features) {
  if (!Array.isArray(messages) || messages.some((one) => typeof one?.role !== "string")) {
    throw new PromptError('messages must be a list of objects with a role; write [{ role: "user", content: "..." }].');
  }
  const adapted = messages.flatMap((message) => adapt(message, features));
  return tools.length && features.messageTools && !features.tools ? putIntoSystem(adapted, tools) : adapted;
}

/**
 * Names of all tools, in their order.
 * @param {readonly Tool[]} tools
 * @returns {string[]}
 * @throws {PromptError} a tool has no name, or two tools have the same name.
 */
export function readToolNames(tools) {
  const names = tools.map(readName);
  const doubled = names.find((name, index) => names.indexOf(name) !== index);
  if (doubled !== undefined) {
    throw new PromptError(`two tools are named ${JSON.stringify(doubled)} where names must differ; rename one.`);
  }
  return names;
}

/**
 * @param {Message} message
 * @param {TemplateFeatures} features
 * @returns {Message[]}
 */
function adapt(message, features) {
  if (message.role === "tool" && !features.toolRole) return [{ ...message, role: "observation" }];
  const { tool_calls: calls, ...rest } = message;
  const isKnown = features.toolCalls || !features.metadata;
  if (isKnown || !Array.isArray(calls) || !calls.length) return [message];
  const adapted = calls.map((call) => ({
    role: message.role,
    metadata: readName(call),
    content: writeArguments((call.function ?? call).arguments ?? {}),
  }));
  return message.content ? [rest, ...adapted] : adapted;
}

/**
 * @param {Message[]} messages
 * @param {readonly Tool[]} tools
 * @returns {Message[]}
 */
function putIntoSystem(messages, tools) {
  const wrapped = tools.map((tool) => ("function" in tool ? tool : { type: "function", function: tool }));
  if (messages[0]?.role === "system") return [{ ...messages[0], tools: wrapped }, ...messages.slice(1)];
  return [{ role: "system", content: "", tools: wrapped }, ...messages];
}

/**
 * JSON with Python's spaces after commas and colons, as in the models' training data.
 * @param {unknown} value
 * @returns {string}
 */
function writeArguments(value) {
  return typeof value === "string" ? value : writeJson(value);
}

/**
 * @param {unknown} value
 * @returns {string}
 */
function writeJson(value) {
  if (Array.isArray(value)) return `[${value.map(writeJson).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value ?? null);
  const entries = Object.entries(value).map(([key, part]) => `${JSON.stringify(key)}: ${writeJson(part)}`);
  return `{${entries.join(", ")}}`;
}

/**
 * @param {any} tool
 * @returns {string}
 */
function readName(tool) {
  const name = (tool?.function ?? tool)?.name;
  if (typeof name !== "string" || !name.trim() || name.includes("\n")) {
    throw new PromptError(
      `a tool has the name ${JSON.stringify(name)} where one line of text is expected; ` +
        'write { type: "function", function: { name: ..., parameters: ... } }.',
    );
  }
  return name;
}
