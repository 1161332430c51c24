/**
 * A loaded model: takes messages, and yields pieces of text. Each host has its own `load` function.
 *
 * Read `session.js` for the steps between a prompt and its answer.
 */

import { readChatTemplate } from "./chat_template.js";
import { checkChatOptions, simplifyMessages } from "./chat_messages.js";
import { removeMarks, requireMarks } from "./control_marks.js";
import { PromptError } from "./errors.js";
import { readManifest, requireWhole } from "./manifest.js";
import { Session } from "./session.js";
import { readDefaults } from "./settings.js";
import { CLOSING, OPENING, isOpenThinking } from "./thinking.js";
import { readTokenizer } from "./tokenizer.js";
import { readToolNames } from "./tool_names.js";

/** @typedef {import("./chat_messages.js").Message} Message */
/** @typedef {import("./chat_messages.js").ChatOptions} ChatOptions */
/** @typedef {import("./settings.js").AnswerOptions} AnswerOptions */

/** A loaded model; made by `openModel`. */
export class Model {
  /**
   * @param {object} parts
   * @param {import("./manifest.js").Manifest} parts.manifest
   * @param {import("./graph.js").Graph} parts.graph
   * @param {import("./tokenizer.js").Tokenizer} parts.tokenizer
   * @param {import("./chat_template.js").ChatTemplate | null} parts.chatTemplate
   * @param {import("./settings.js").Settings} parts.defaults  the settings of the folder's generation_config.json
   */
  constructor({ manifest, graph, tokenizer, chatTemplate, defaults }) {
    this.manifest = manifest;
    this.graph = graph;
    this.tokenizer = tokenizer;
    this.chatTemplate = chatTemplate;
    this.defaults = defaults;
  }

  /** Start a conversation with its own KV cache. */
  newSession() {
    return new Session(this);
  }

  /**
   * Answer a conversation on a new session. The model's chat template renders the messages.
   * @param {readonly Message[]} messages
   * @param {AnswerOptions & ChatOptions} [options]
   * @throws {PromptError} the template fails on the messages, or they do not fit into the context.
   */
  chat(messages, options) {
    return this.newSession().chat(messages, options);
  }

  /**
   * Continue a prompt on a new session.
   * @param {string | readonly number[]} prompt  text, to which no special tokens are added, or token ids
   * @param {AnswerOptions} [options]
   * @throws {PromptError} the prompt is empty, is too long, or contains an invalid token id.
   */
  generate(prompt, options) {
    return this.newSession().generate(prompt, options);
  }

  /**
   * Render and tokenize a conversation, up to the point where the answer begins.
   * @param {readonly Message[]} messages
   * @param {ChatOptions} [options]
   * @returns {{ promptIds: number[], form: import("./answer.js").AnswerForm }}
   * @throws {PromptError} there is no chat template, it fails on the messages, or it omits a message or a tool.
   */
  prepareChat(messages, options = {}) {
    if (!this.chatTemplate) {
      throw new PromptError(
        "this folder has no chat template, so messages cannot be rendered; pass the whole prompt to generate().",
      );
    }
    if (Array.isArray(messages) && !messages.length) {
      throw new PromptError("the conversation is empty; pass at least one message.");
    }
    checkChatOptions(options);
    readToolNames(options.tools ?? []);
    const template = this.chatTemplate.choose(options.template ?? undefined);
    const isMarked = options.isSanitized ?? false;
    const text = isMarked ? this.#renderMarked(template, messages, options) : template.render(messages, options);
    template.requireWritten(messages, options);
    const form = {
      isChat: true,
      isThinking: isThinking(removeMarks(text), messages, options),
      dialect: template.chooseDialect(options.tools),
      numCalls: countCalls(messages),
    };
    return { promptIds: this.tokenizer.encodeMarked(text), form };
  }

  /**
   * @param {import("./chat_template.js").ChatTemplate} template
   * @param {readonly Message[]} messages
   * @param {ChatOptions} options
   */
  #renderMarked(template, messages, options) {
    const marks = this.tokenizer.controlMarks;
    // Text parts are joined first: a name may begin in one part and end in the next.
    const marked = marks.mark(simplifyMessages(messages));
    return requireMarks(template.render(marked, { ...options, tools: marks.mark(options.tools) }));
  }

  /** Free the memory of the graph and its weights. The model cannot be used afterwards. */
  async release() {
    await this.graph.release();
  }
}

/**
 * Whether the answer goes on inside the reasoning.
 * @param {string} text
 * @param {readonly Message[]} messages
 * @param {ChatOptions} options
 */
function isThinking(text, messages, options) {
  if (!options.continuesAnswer) return isOpenThinking(text);
  const begun = String(messages[messages.length - 1].content);
  return begun.lastIndexOf(OPENING) > begun.lastIndexOf(CLOSING);
}

/**
 * Open an exported folder.
 * @param {import("./text_files.js").Folder} folder
 * @param {(model: import("./manifest.js").ModelEntry) => Promise<import("./graph.js").Graph>} openGraph
 * @param {boolean} [verify]  compare the SHA-256 of every file with the manifest, not only its size
 * @returns {Promise<Model>}
 * @throws {import("./errors.js").FolderError} a file is missing, or does not match the manifest.
 * @throws {import("./errors.js").FormatVersionError} a newer version of glm-export wrote the folder.
 */
export async function openModel(folder, openGraph, verify = false) {
  const manifest = await readManifest(folder);
  await requireWhole(folder, manifest, verify);
  const tokenizer = await readTokenizer(folder);
  const chatTemplate = await readChatTemplate(folder);
  const defaults = await readDefaults(folder);
  const graph = await openGraph(manifest.model);
  return new Model({ manifest, graph, tokenizer, chatTemplate, defaults });
}

/**
 * Count the tool calls of a conversation.
 * @param {readonly Message[]} messages
 */
function countCalls(messages) {
  const counts = messages.map(({ tool_calls: calls }) => (Array.isArray(calls) ? calls.length : 0));
  return counts.reduce((sum, count) => sum + count, 0);
}
