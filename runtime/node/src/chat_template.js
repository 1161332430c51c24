/**
 * Messages to prompt text, by the checkpoint's own Jinja template.
 *
 * @huggingface/jinja interprets templates itself: they cannot reach JavaScript. It bounds neither
 * their time nor their memory; the exporter has run the template within bounds, once.
 */

import { Template } from "@huggingface/jinja";

import { adaptMessages } from "./chat_messages.js";
import { FolderError, PromptError, firstLine } from "./errors.js";
import { isObject, readObject, readText } from "./text_files.js";

const TEMPLATE_NAME = "chat_template.jinja";
const TOKENIZER_CONFIG_NAME = "tokenizer_config.json";

/** @typedef {import("./chat_messages.js").Message} Message */
/** @typedef {import("./chat_messages.js").ChatOptions} ChatOptions */

/** A compiled chat template, with the special tokens it may name. */
export class ChatTemplate {
  #template;
  #words;
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
    this.#words = findWords(this.#template.parsed);
  }

  /**
   * Render a conversation up to where the answer begins.
   * @param {readonly Message[]} messages
   * @param {ChatOptions} [options]
   * @returns {string}
   * @throws {PromptError} the template refuses the messages.
   */
  render(messages, options = {}) {
    const { tools = [], enableThinking } = options;
    const adapted = adaptMessages(messages, tools, this.#words);
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
        `the model's chat template refuses these messages (${firstLine(error)}); ` +
          "check their roles and contents, or give the text itself to generate().",
        error,
      );
    }
  }
}

/**
 * Read the template of a folder; `null` when it has none, as base models do.
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
 * Collect `bos_token`, `eos_token` and so on, each written as text or as an object.
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
 * What a template reads: texts it compares with, names of fields, the variable `tools`.
 * @param {unknown} program
 * @returns {import("./chat_messages.js").TemplateWords}
 */
function findWords(program) {
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
