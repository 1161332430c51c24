/**
 * Renders messages to prompt text with the checkpoint's own Jinja template.
 *
 * @huggingface/jinja interprets templates itself, so that a template cannot run JavaScript. It limits
 * neither their time nor their memory; the exporter has run the template once within limits.
 */

import { Template } from "@huggingface/jinja";

import { adaptMessages } from "./chat_messages.js";
import { FolderError, PromptError, firstLine } from "./errors.js";
import { isObject, readObject, readText } from "./text_files.js";

const TEMPLATE_NAME = "chat_template.jinja";
const TOKENIZER_CONFIG_NAME = "tokenizer_config.json";

/** @typedef {import("./chat_messages.js").Message} Message */
/** @typedef {import("./chat_messages.js").ChatOptions} ChatOptions */

/** A parsed chat template, with the special tokens that it can use. */
export class ChatTemplate {
  #template;
  #features;
  #specialTokens;

  /**
   * @param {string} source
   * @param {Record<string, string>} [specialTokens]
   * @throws {FolderError} the template is not valid Jinja.
   */
  constructor(source, specialTokens = {}) {
    this.#specialTokens = specialTokens;
    try {
      this.#template = new Template(source);
    } catch (error) {
      throw new FolderError(
        `${TEMPLATE_NAME} is not a valid Jinja template (${firstLine(error)}); ` +
          "correct it in the checkpoint and export again.",
        error,
      );
    }
    this.#features = findFeatures(this.#template.parsed);
  }

  /**
   * Render a conversation, up to the point where the answer begins.
   * @param {readonly Message[]} messages
   * @param {ChatOptions} [options]
   * @returns {string}
   * @throws {PromptError} the template fails on the messages.
   */
  render(messages, options = {}) {
    const { tools = [], enableThinking } = options;
    const adapted = adaptMessages(messages, tools, this.#features);
    const variables = enableThinking === undefined ? {} : { enable_thinking: enableThinking };
    try {
      return this.#template.render({
        ...this.#specialTokens,
        ...variables,
        messages: adapted,
        tools: tools.length ? [...tools] : null,
        documents: null,
        add_generation_prompt: true,
      });
    } catch (error) {
      throw new PromptError(
        `the model's chat template fails on these messages (${firstLine(error)}); ` +
          "check their roles and contents, or pass the whole prompt to generate().",
        error,
      );
    }
  }
}

/**
 * Read the template of a folder. Base models have none; the result is `null` then.
 * @param {import("./text_files.js").Folder} folder
 * @throws {FolderError} a file cannot be read, or the template is not valid Jinja.
 */
export async function readChatTemplate(folder) {
  const names = await folder.listNames();
  const config = names.includes(TOKENIZER_CONFIG_NAME) ? await readObject(folder, TOKENIZER_CONFIG_NAME) : {};
  const hasFile = names.includes(TEMPLATE_NAME);
  const source = hasFile ? await readText(folder, TEMPLATE_NAME) : config.chat_template;
  return typeof source === "string" ? new ChatTemplate(source, findSpecialTokens(config)) : null;
}

/**
 * Collect `bos_token`, `eos_token` and so on; each value is a string or an object.
 * @param {Record<string, unknown>} config
 */
function findSpecialTokens(config) {
  /** @type {Record<string, string>} */
  const tokens = {};
  for (const [key, value] of Object.entries(config)) {
    const text = isObject(value) ? value.content : value;
    if (key.endsWith("_token") && typeof text === "string") tokens[key] = text;
  }
  return tokens;
}

/**
 * Find the features of a template by the strings, fields and variables in it.
 * @param {unknown} program  the parsed template
 * @returns {import("./chat_messages.js").TemplateFeatures}
 */
function findFeatures(program) {
  const texts = new Set();
  const fields = new Set();
  const names = new Set();
  /** @param {unknown} node */
  const visit = (node) => {
    if (Array.isArray(node)) return node.forEach(visit);
    if (node instanceof Map) return [...node].forEach(visit);
    if (!isObject(node)) return undefined;
    if (node.type === "StringLiteral") texts.add(node.value);
    if (node.type === "Identifier") names.add(node.value);
    const isField = node.type === "MemberExpression" && !node.computed;
    if (isField && isObject(node.property)) fields.add(node.property.value);
    for (const [key, part] of Object.entries(node)) if (!(isField && key === "property")) visit(part);
    return undefined;
  };
  visit(program);
  return {
    toolRole: texts.has("tool"),
    toolCalls: fields.has("tool_calls") || texts.has("tool_calls"),
    metadata: fields.has("metadata") || texts.has("metadata"),
    tools: names.has("tools"),
    messageTools: fields.has("tools") || texts.has("tools"),
  };
}
