/** Runs exported folders in Node: `load(folder)`, then `model.chat(messages, options)`. */

export {
  FolderError,
  FormatVersionError,
  GenerationError,
  GlmRuntimeError,
  HostileTemplateError,
  PromptError,
  SamplingError,
} from "./errors.js";
export { load } from "./load.js";
export { Model } from "./model.js";
export { Session } from "./session.js";

/** @typedef {import("./answer_writer.js").FinishReason} FinishReason */
/** @typedef {import("./answer_writer.js").Piece} Piece */
/** @typedef {import("./chat_messages.js").ChatOptions} ChatOptions */
/** @typedef {import("./chat_messages.js").Message} Message */
/** @typedef {import("./chat_messages.js").Tool} Tool */
/** @typedef {import("./load.js").LoadOptions} LoadOptions */
/** @typedef {import("./settings.js").AnswerOptions} AnswerOptions */
/** @typedef {import("./answer.js").ToolCall} ToolCall */
