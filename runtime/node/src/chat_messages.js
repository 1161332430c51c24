/**
 * Messages as OpenAI's clients write them, in the words that a GLM template knows.
 *
 * GLM-4-0414's template knows results of tools as the role `observation`, and a call as an
 * assistant's message whose `metadata` is the tool's name; newer ones know `tool_calls` themselves.
 */

import { PromptError } from "./errors.js";

/**
 * A role, a content, and whatever else the template knows (tool calls, metadata).
 * @typedef {{ role: string, content?: unknown, tool_calls?: unknown, [key: string]: unknown }} Message
 */

/**
 * A function the model may call, as OpenAI writes it or the inner object alone.
 * @typedef {Record<string, unknown>} Tool
 */

/**
 * @typedef {object} ChatOptions
 * @property {readonly Tool[]} [tools]  that the model may call
 * @property {boolean} [enableThinking]  for templates that know it
 */

/**
 * What a template knows of OpenAI's words: messages of the role `tool`, an assistant's
 * `tool_calls`, a message's `metadata`, the variable `tools`, `tools` in the system message.
 * @typedef {object} TemplateWords
 * @property {boolean} toolRole
 * @property {boolean} toolCalls
 * @property {boolean} metadata
 * @property {boolean} tools
 * @property {boolean} messageTools
 */

/**
 * Put roles, tools and their calls into the words of a template that does not know OpenAI's.
 * @param {readonly Message[]} messages  not changed
 * @param {readonly Tool[]} tools
 * @param {TemplateWords} words
 * @returns {Message[]}
 * @throws {PromptError} a message is no object, or a tool call has no name.
 */
export function adaptMessages(messages, tools, words) {
  if (!Array.isArray(messages) || messages.some((one) => typeof one?.role !== "string")) {
    throw new PromptError('messages are expected as [{ role: "user", content: "..." }]; write them so.');
  }
  const adapted = messages.flatMap((message) => adapt(message, words));
  return tools.length && words.messageTools && !words.tools ? putIntoSystem(adapted, tools) : adapted;
}

/**
 * Names of all tools, in order.
 * @param {readonly Tool[]} tools
 * @returns {string[]}
 * @throws {PromptError} a tool has no name, or two have the same.
 */
export function readToolNames(tools) {
  const names = tools.map(readName);
  const doubled = names.find((name, place) => names.indexOf(name) !== place);
  if (doubled !== undefined) {
    throw new PromptError(`two tools are named ${JSON.stringify(doubled)} where names must differ; rename one.`);
  }
  return names;
}

/**
 * @param {Message} message
 * @param {TemplateWords} words
 * @returns {Message[]}
 */
function adapt(message, words) {
  if (message.role === "tool" && !words.toolRole) return [{ ...message, role: "observation" }];
  const { tool_calls: calls, ...rest } = message;
  const isKnown = words.toolCalls || !words.metadata;
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
 * JSON with the spaces that Python writes, as the models were trained.
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
      `a tool is named ${JSON.stringify(name)} where one line of text is expected; ` +
        'write { type: "function", function: { name: ..., parameters: ... } }.',
    );
  }
  return name;
}
