/**
 * The part of the package that uses neither the disk nor onnxruntime-node, for other hosts such as `runtime/web`.
 *
 * Read `graph.js` and `text_files.js` for the two interfaces that a host implements.
 */

export { Decoder } from "./decoder.js";
export * from "./errors.js";
export { Graph, checkTensors, listCacheNames } from "./graph.js";
export { MANIFEST_NAME, readManifest, requireVersion } from "./manifest.js";
export { Model, openModel } from "./model.js";
export { Session } from "./session.js";
export { isObject } from "./text_files.js";

/** @typedef {import("./answer_writer.js").Piece} Piece */
/** @typedef {import("./chat_messages.js").ChatOptions} ChatOptions */
/** @typedef {import("./chat_messages.js").Message} Message */
/** @typedef {import("./manifest.js").FileEntry} FileEntry */
/** @typedef {import("./manifest.js").ModelEntry} ModelEntry */
/** @typedef {import("./settings.js").AnswerOptions} AnswerOptions */
/** @typedef {import("./settings.js").Settings} Settings */
/** @typedef {import("./text_files.js").Folder} Folder */
/** @typedef {import("./text_files.js").Found} Found */
