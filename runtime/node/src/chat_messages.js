/**
 * Converts messages in OpenAI's format to the format that a GLM chat template expects.
 *
 * The template of GLM-4-0414 expects a tool's result in the role `observation`, and a tool call as an
 * assistant message whose `metadata` is the tool's name. Newer templates read `tool_calls` themselves.
 */

import { CallWriter, describeTools, readArguments, refuseArguments } from "./call_messages.js";
import { PromptError } from "./errors.js";
import { isObject } from "./text_files.js";
import { findBuiltIn, readName } from "./tool_names.js";

/**
 * A role, a content, and other fields that the template reads (tool calls, metadata).
 * @typedef {{ role: string, content?: unknown, tool_calls?: unknown, [key: string]: unknown }} Message
 */

/**
 * A function that the model may call: in OpenAI's format, or the object in its field `function` alone; or
 * a built-in tool of GLM-4 All Tools, such as `{ type: "python" }`.
 * @typedef {Record<string, unknown>} Tool
 */

/**
 * @typedef {object} ChatOptions
 * @property {readonly Tool[]} [tools]  tools that the model may call
 * @property {boolean} [enableThinking]  the template variable `enable_thinking`; by default it is not set
 * @property {string} [template]  name of one of the checkpoint's named templates; by default the tools decide
 * @property {boolean} [isSanitized]  read names of control tokens in messages as plain text; off by default, as in transformers
 * @property {boolean} [continuesAnswer]  the last message is the beginning of the answer, which the model continues
 */

/** @typedef {import("./template_features.js").TemplateFeatures} TemplateFeatures */

/**
 * Refuse options of other types; `undefined` and `null` leave an option out.
 * @param {ChatOptions} options
 * @throws {PromptError} names the option.
 */
export function checkChatOptions(options) {
  for (const name of /** @type {const} */ (["enableThinking", "isSanitized", "continuesAnswer"])) {
    require(typeof (options[name] ?? false) === "boolean", name, options[name], "true or false");
  }
  const { tools, template } = options;
  require(Array.isArray(tools ?? []), "tools", tools, "a list of objects");
  require(typeof (template ?? "") === "string", "template", template, "the name of a template");
}

/**
 * @param {boolean} isMet
 * @param {string} name
 * @param {unknown} value
 * @param {string} expected
 */
function require(isMet, name, value, expected) {
  if (isMet) return;
  const shown = typeof value === "string" ? JSON.stringify(value) : String(value);
  throw new PromptError(`${name} is ${shown} where ${expected} is expected; correct it.`);
}

/**
 * Drop fields that are null, name reasoning as transformers does, and join text parts.
 * @param {readonly Message[]} messages
 * @returns {Message[]}
 * @throws {PromptError} there is no message, or one has no role, a part that is not text, or, as an answer,
 * neither content nor calls.
 */
export function simplifyMessages(messages) {
  if (!Array.isArray(messages) || messages.some((one) => typeof one?.role !== "string")) {
    throw new PromptError('messages must be a list of objects with a role; write [{ role: "user", content: "..." }].');
  }
  return messages.map((message, index) => simplify(message, index + 1));
}

/**
 * Convert roles, tools and tool calls for a template that does not read OpenAI's format.
 * @param {readonly Message[]} messages  messages of `simplifyMessages`; not modified
 * @param {readonly Tool[]} tools
 * @param {TemplateFeatures} features
 * @returns {Message[]}
 * @throws {PromptError} a tool call has no name, or arguments that the template cannot write.
 */
export function adaptMessages(messages, tools, features) {
  const writer = new CallWriter(features, tools);
  const adapted = messages.flatMap((message) => adapt(message, features, writer));
  if (!tools.length || features.tools) return adapted;
  if (features.messageTools) return putIntoSystem(adapted, tools);
  return features.pythonCalls ? describeTools(adapted, tools) : adapted;
}

/**
 * The JSON schema of the parameters of each function, by its name.
 * @param {readonly Tool[]} tools
 * @returns {Map<string, unknown>}
 */
export function listParameters(tools) {
  const functions = tools.filter((tool) => !findBuiltIn(tool));
  return new Map(functions.map((tool) => [readName(tool), Object(tool.function ?? tool).parameters]));
}

/**
 * Whether no message needs a conversion: there are no calls and no results.
 * @param {readonly Message[]} messages
 */
export function isPlain(messages) {
  return !messages.some((one) => "tool_calls" in one || one.role === "tool");
}

/**
 * @param {Message} message
 * @param {number} place
 * @returns {Message}
 */
function simplify(message, place) {
  const entries = Object.entries(message).filter(([, value]) => value !== null && value !== undefined);
  /** @type {any} */
  let kept = Object.fromEntries(entries);
  const reasoning = kept.reasoning_content ?? kept.thinking ?? kept.reasoning;
  if (reasoning !== undefined) kept = { thinking: reasoning, ...kept, reasoning_content: reasoning };
  const content = kept.content ?? "";
  if (Array.isArray(content)) kept.content = content.map((part) => readPart(part, place)).join("");
  else if (typeof content !== "string") {
    throw new PromptError(
      `message ${place} has the content ${JSON.stringify(content).slice(0, 80)} where text is expected; ` +
        "write a text, or a list of text parts.",
    );
  }
  const calls = kept.tool_calls ?? [];
  if (!Array.isArray(calls) || !calls.every(isObject)) {
    throw new PromptError(
      `message ${place} has the tool calls ${JSON.stringify(calls).slice(0, 80)} where a list of objects is ` +
        "expected; write calls in OpenAI's format.",
    );
  }
  if (kept.role === "assistant" && !calls.length && !("content" in kept || "thinking" in kept)) {
    throw new PromptError(
      `message ${place} of the assistant has neither content nor calls; write a content, which may be empty, or ` +
        "leave the message out.",
    );
  }
  return kept;
}

/**
 * @param {any} part
 * @param {number} place
 * @returns {string}
 */
function readPart(part, place) {
  if (typeof part === "string") return part;
  if ((part?.type ?? "text") === "text" && typeof part?.text === "string") return part.text;
  throw new PromptError(
    `message ${place} has a part of the type ${JSON.stringify(part?.type ?? typeof part)} where only text is ` +
      'supported; write { type: "text", text: ... }.',
  );
}

/**
 * @param {Message} message
 * @param {TemplateFeatures} features
 * @param {CallWriter} writer
 * @returns {Message[]}
 */
function adapt(message, features, writer) {
  if (message.role === "tool" && !features.toolRole) return [writer.writeResult(message)];
  const { tool_calls: calls, ...rest } = message;
  if (!Array.isArray(calls) || !calls.length) return [message];
  if (features.toolCalls) {
    return [{ ...message, tool_calls: calls.map((call) => adaptCall(call, features)) }];
  }
  const adapted = calls.map((call) => writer.writeCall(call));
  return message.content ? [rest, ...adapted] : adapted;
}

/**
 * Convert the arguments of a call to an object; @huggingface/jinja writes an object as JSON text.
 * @param {any} call
 * @param {TemplateFeatures} features
 */
function adaptCall(call, { taggedCalls }) {
  readName(call);
  const inner = call.function ?? call;
  const given = readArguments(call);
  const args = typeof given === "string" ? parseArguments(given) : given;
  if (taggedCalls && !isObject(args)) refuseArguments(call, args); // there is a tag for each key
  const adapted = { ...inner, arguments: args };
  return call.function ? { ...call, function: adapted } : adapted;
}

/**
 * @param {Message[]} messages
 * @param {readonly Tool[]} tools
 * @returns {Message[]}
 */
function putIntoSystem(messages, tools) {
  const wrapped = tools.map((tool) =>
    "function" in tool || findBuiltIn(tool) ? tool : { type: "function", function: tool },
  );
  if (messages[0]?.role === "system") return [{ ...messages[0], tools: wrapped }, ...messages.slice(1)];
  return [{ role: "system", content: "", tools: wrapped }, ...messages];
}

/**
 * The object that a text describes; a text that is no object stays as it is.
 * @param {string} text
 * @returns {unknown}
 */
function parseArguments(text) {
  try {
    const found = JSON.parse(text);
    return isObject(found) ? found : text;
  } catch {
    return text;
  }
}
