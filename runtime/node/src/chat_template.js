/**
 * Renders messages to prompt text with the checkpoint's own Jinja template.
 *
 * A checkpoint's template is not trusted; `bounded_template.js` limits its time and its memory.
 */

import { BoundedTemplate } from "./bounded_template.js";
import { adaptMessages, isPlain, listParameters, simplifyMessages } from "./chat_messages.js";
import { chooseDialect } from "./dialects/choice.js";
import { FolderError, HostileTemplateError, PromptError, firstLine } from "./errors.js";
import { findFeatures, findOwnTools } from "./template_features.js";
import { TemplateLimitError } from "./template_limits.js";
import { isObject, readObject, readText } from "./text_files.js";
import { findBuiltIn } from "./tool_names.js";
import { strip, stripBack } from "./white_space.js";
import { requireWritten } from "./written_check.js";

const TEMPLATE_NAME = "chat_template.jinja";
const NAMES_NAME = "chat_templates.json"; // all named templates, where the checkpoint has several
const TOKENIZER_CONFIG_NAME = "tokenizer_config.json";
// Follows an answer that is continued; a template that strips contents drops the blank. As in transformers.
const END_MARK = "END_OF_WHAT_IS_CONTINUED ";
// How @huggingface/jinja says that a value is undefined.
const UNDEFINED_WORDS = / on undefined values$| UndefinedValue$/;

/** @typedef {import("./chat_messages.js").Message} Message */
/** @typedef {import("./chat_messages.js").Tool} Tool */
/** @typedef {import("./chat_messages.js").ChatOptions} ChatOptions */

/** A parsed chat template, with the special tokens that it can use. */
export class ChatTemplate {
  #template;
  /** @type {import("./template_features.js").TemplateFeatures | undefined} */ #features;
  /** @type {string[] | undefined} */ #ownTools;
  #specialTokens;
  #named;

  /**
   * @param {string} source
   * @param {Record<string, string>} [specialTokens]
   * @param {Record<string, unknown>} [named]  sources of the checkpoint's named templates
   * @throws {FolderError} the template is not valid Jinja.
   */
  constructor(source, specialTokens = {}, named = {}) {
    this.#specialTokens = specialTokens;
    this.#named = named;
    try {
      this.#template = new BoundedTemplate(source);
    } catch (error) {
      throw new FolderError(
        `${TEMPLATE_NAME} is not a valid Jinja template (${firstLine(error)}); ` +
          "correct it in the checkpoint and export again.",
        error,
      );
    }
  }

  /**
   * The template of a name. Without a name it is this one, which chooses by the tools.
   * @param {string} [name]
   * @returns {ChatTemplate}
   * @throws {PromptError} there is no template of this name.
   */
  choose(name) {
    if (name === undefined) return this;
    const source = Object.hasOwn(this.#named, name) ? this.#named[name] : undefined;
    if (typeof source === "string") return new ChatTemplate(source, this.#specialTokens);
    throw new PromptError(
      `the chat template ${JSON.stringify(name)} was requested but the folder has ` +
        `${Object.keys(this.#named).sort().join(", ") || "no named templates"}; choose one of these, or leave the name out.`,
    );
  }

  /** What the template reads, found by rendering probes. */
  get features() {
    this.#features ??= findFeatures((messages, tools) => this.#renderProbe(messages, tools));
    return this.#features;
  }

  /** Names of the tools that the template writes into every prompt. */
  get ownTools() {
    this.#ownTools ??= findOwnTools((messages) => this.#renderProbe(messages));
    return this.#ownTools;
  }

  /**
   * How the model calls tools in its answers; `null` if it may call nothing.
   * @param {readonly Tool[]} [tools]
   */
  chooseDialect(tools = []) {
    if (!tools.length && !this.ownTools.length) return null;
    const builtIn = tools.flatMap((tool) => findBuiltIn(tool) ?? []);
    return chooseDialect(this.features, listParameters(tools), builtIn);
  }

  /**
   * Render a conversation, up to the point where the answer begins.
   * @param {readonly Message[]} messages
   * @param {ChatOptions} [options]
   * @param {boolean} [isAnswerNext]  end with the template's generation prompt
   * @returns {string}
   * @throws {PromptError} the template fails on the messages, or the last one cannot be continued.
   */
  render(messages, options = {}, isAnswerNext = true) {
    const simple = simplifyMessages(messages);
    if (options.continuesAnswer) return this.#renderContinued(simple, options);
    return this.#renderAdapted(simple, options.tools ?? [], options, isAnswerNext);
  }

  /**
   * Check that the template leaves out no message and no tool.
   * @param {readonly Message[]} messages
   * @param {ChatOptions} [options]
   * @throws {PromptError} it leaves out something; the sentence names it.
   */
  requireWritten(messages, options = {}) {
    const tools = options.tools ?? [];
    /** @type {(messages: readonly Message[], tools: readonly Tool[]) => string} */
    const render = (marked, named) => this.#renderAdapted(marked, named, options, false);
    const known = tools.length ? [...this.features.ownTools, ...this.features.builtInTools] : [];
    requireWritten(simplifyMessages(messages), tools, render, known);
  }

  /**
   * Render up to the end of the last message.
   * @param {Message[]} messages
   * @param {ChatOptions} options
   */
  #renderContinued(messages, options) {
    const last = messages[messages.length - 1];
    if (Array.isArray(last?.tool_calls) && last.tool_calls.length) {
      throw new PromptError(
        "the last message has tool calls where the beginning of an answer is to be continued, which is text; " +
          "leave the calls out, or add their results and do not continue.",
      );
    }
    if (last?.role !== "assistant" || typeof last.content !== "string" || !strip(last.content)) {
      throw new PromptError(
        "the last message is not the beginning of an answer where one is to be continued; " +
          'end the messages with { role: "assistant", content: ... }.',
      );
    }
    const marked = [...messages.slice(0, -1), { ...last, content: last.content + END_MARK }];
    const text = this.#renderAdapted(marked, options.tools ?? [], options, false);
    const end = text.lastIndexOf(END_MARK.trimEnd());
    if (end < 0) {
      throw new PromptError(
        "the model's chat template does not write the end of the last message, so an answer cannot be " +
          "continued; leave the beginning out.",
      );
    }
    return text.startsWith(END_MARK, end) ? text.slice(0, end) : stripBack(text.slice(0, end));
  }

  /**
   * @param {readonly Message[]} messages
   * @param {readonly Tool[]} tools
   * @param {ChatOptions} options
   * @param {boolean} isAnswerNext
   */
  #renderAdapted(messages, tools, { enableThinking }, isAnswerNext) {
    const adapted = tools.length || !isPlain(messages) ? adaptMessages(messages, tools, this.features) : messages;
    const variables = (enableThinking ?? null) === null ? {} : { enable_thinking: enableThinking };
    return this.#renderRaw(adapted, tools, variables, isAnswerNext);
  }

  /**
   * @param {readonly Message[]} messages
   * @param {readonly Tool[]} [tools]
   */
  #renderProbe(messages, tools = []) {
    try {
      return this.#renderRaw(messages, tools, {}, false);
    } catch (error) {
      // The other probes of a template that takes too long would take as long.
      if (error instanceof PromptError && !(error instanceof HostileTemplateError)) return "";
      throw error;
    }
  }

  /**
   * @param {readonly Message[]} messages
   * @param {readonly Tool[]} tools
   * @param {Record<string, unknown>} variables
   * @param {boolean} isAnswerNext
   * @returns {string}
   */
  #renderRaw(messages, tools, variables, isAnswerNext) {
    try {
      return this.#template.render({
        ...this.#specialTokens,
        ...variables,
        messages,
        tools: tools.length ? [...tools] : null,
        documents: null,
        add_generation_prompt: isAnswerNext,
      });
    } catch (error) {
      if (error instanceof TemplateLimitError) {
        throw new HostileTemplateError(
          `the model's chat template does something that is not allowed (${firstLine(error)}); ` +
            "do not trust its source, or pass the whole prompt to generate().",
          error,
        );
      }
      if (UNDEFINED_WORDS.test(firstLine(error))) {
        throw new PromptError(
          "the model's chat template reads a value that these messages do not have; give every message a content, " +
            "or pass the whole prompt to generate().",
          error,
        );
      }
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
  const named = names.includes(NAMES_NAME) ? await readObject(folder, NAMES_NAME) : {};
  return typeof source === "string" ? new ChatTemplate(source, findSpecialTokens(config), named) : null;
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
