/**
 * An exported folder, opened: messages in, pieces of text out. Each host has a `load` over it.
 *
 * Read `session.js` for what happens between prompt and piece.
 */

import { readChatTemplate } from "./chat_template.js";
import { readToolNames } from "./chat_messages.js";
import { PromptError } from "./errors.js";
import { readManifest, requireWhole } from "./manifest.js";
import { Session } from "./session.js";
import { readDefaults } from "./settings.js";
import { isOpenThinking } from "./thinking.js";
import { readTokenizer } from "./tokenizer.js";

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
   * @param {import("./settings.js").Settings} parts.defaults  the folder's own settings
   */
  constructor({ manifest, graph, tokenizer, chatTemplate, defaults }) {
    this.manifest = manifest;
    this.graph = graph;
    this.tokenizer = tokenizer;
    this.chatTemplate = chatTemplate;
    this.defaults = defaults;
  }

  /** Start a conversation with a cache of its own. */
  newSession() {
    return new Session(this);
  }

  /**
   * Answer a conversation, rendered by the model's own chat template, on a new session.
   * @param {readonly Message[]} messages
   * @param {AnswerOptions & ChatOptions} [options]
   * @throws {PromptError} the template refuses the messages, or they are longer than the context.
   */
  chat(messages, options) {
    return this.newSession().chat(messages, options);
  }

  /**
   * Continue a prompt, on a new session.
   * @param {string | readonly number[]} prompt  text, without special tokens added, or token ids
   * @param {AnswerOptions} [options]
   * @throws {PromptError} the prompt is empty, too long, or holds an id that is no token.
   */
  generate(prompt, options) {
    return this.newSession().generate(prompt, options);
  }

  /**
   * Render a conversation up to where the answer begins.
   * @param {readonly Message[]} messages
   * @param {ChatOptions} [options]
   * @returns {{ promptIds: number[], form: import("./answer.js").AnswerForm }}
   * @throws {PromptError} no chat template, or it refuses the messages or leaves out the tools.
   */
  prepareChat(messages, options = {}) {
    if (!this.chatTemplate) {
      throw new PromptError(
        "this folder has no chat template where one is expected; give the whole text to generate().",
      );
    }
    const toolNames = readToolNames(options.tools ?? []);
    const text = this.chatTemplate.render(messages, options);
    const missing = toolNames.find((name) => !text.includes(name));
    if (missing !== undefined) {
      throw new PromptError(
        `the model's chat template writes no tool ${JSON.stringify(missing)} into the prompt; ` +
          "leave them out, or describe them in a system message.",
      );
    }
    const form = { isChat: true, isThinking: isOpenThinking(text), toolNames };
    return { promptIds: this.tokenizer.encode(text), form };
  }

  /** Give the memory of graph and weights back; nothing can be asked afterwards. */
  async release() {
    await this.graph.release();
  }
}

/**
 * Open an exported folder.
 * @param {import("./text_files.js").Folder} folder
 * @param {(model: import("./manifest.js").ModelEntry) => Promise<import("./graph.js").Graph>} openGraph
 * @param {boolean} [verify]  compare every byte with the manifest's hashes, not only the sizes
 * @returns {Promise<Model>}
 * @throws {import("./errors.js").FolderError} the folder is not whole, or not what its manifest promises.
 * @throws {import("./errors.js").FormatVersionError} the folder comes from a newer glm-export.
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
