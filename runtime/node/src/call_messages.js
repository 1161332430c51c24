/**
 * Writes calls and results of earlier turns for templates that do not read OpenAI's format.
 *
 * A call becomes a message in the dialect of the model, as the model wrote it itself. The name of its
 * tool goes into the message's `metadata` where the template writes that, and otherwise into the text.
 */

import { RESULTS, writeBuiltIn } from "./dialects/all_tools.js";
import { readJson } from "./dialects/json_scanner.js";
import { writePythonCall } from "./dialects/python_call.js";
import { PromptError } from "./errors.js";
import { isObject } from "./text_files.js";
import { findBuiltIn, readName } from "./tool_names.js";

/** @typedef {import("./chat_messages.js").Message} Message */
/** @typedef {import("./chat_messages.js").Tool} Tool */

// ChatGLM3's system message where there are tools.
const TOOLS_FOLLOW =
  "Answer the following questions as best as you can. You have access to the following tools:";

/** Writes the calls of one conversation, in order, and their results. */
export class CallWriter {
  #features;
  #builtIn;
  /** @type {Map<string, string>} */ #names = new Map(); // names of called tools by the ids of their calls
  /** @type {string[]} */ #waiting = []; // names of called tools without a result

  /**
   * @param {import("./template_features.js").TemplateFeatures} features
   * @param {readonly Tool[]} tools
   */
  constructor(features, tools) {
    const functions = tools.filter((tool) => !findBuiltIn(tool)).map(readName);
    this.#features = features;
    this.#builtIn = features.builtInTools.filter((name) => !functions.includes(name));
  }

  /**
   * Write a call as a message.
   * @param {any} call
   * @returns {Message}
   * @throws {PromptError} it has no name, or its arguments are neither text nor an object.
   */
  writeCall(call) {
    const name = readName(call);
    this.#waiting.push(name);
    if (typeof call.id === "string") this.#names.set(call.id, name);
    const args = writeArguments(readArguments(call));
    if (this.#features.ownTools.length) {
      return { role: "assistant", content: `{"name": ${JSON.stringify(name)}, "arguments": ${args}}` };
    }
    const content = this.#writeBody(name, args);
    if (this.#features.metadata) return { role: "assistant", metadata: name, content };
    return { role: "assistant", content: `${name}\n${content}` };
  }

  /**
   * @param {string} name
   * @param {string} args
   */
  #writeBody(name, args) {
    if (this.#builtIn.includes(name)) return writeBuiltIn(name, args);
    return this.#features.pythonCalls ? writePythonCall(args) : args;
  }

  /**
   * Write a result as an observation. The result of a built-in tool gets the tool's `metadata`, unless it
   * has some already.
   * @param {Message} message
   * @returns {Message}
   */
  writeResult(message) {
    const first = this.#waiting.shift() ?? "";
    const name = this.#names.get(String(message.tool_call_id)) ?? first;
    const metadata = this.#builtIn.includes(name) ? RESULTS.get(name) : undefined;
    const content = this.#features.ownTools.length ? listPages(message.content) : message.content;
    return { ...(metadata && { metadata }), ...message, role: "observation", content };
  }
}

/**
 * Write tools into the system message as JSON, as ChatGLM3's own code does.
 * @param {readonly Message[]} messages
 * @param {readonly Tool[]} tools
 * @returns {Message[]}
 */
export function describeTools(messages, tools) {
  const described = JSON.stringify(tools.map((tool) => tool.function ?? tool), null, 4);
  const hasSystem = messages[0]?.role === "system";
  const said = hasSystem ? messages[0].content : TOOLS_FOLLOW;
  return [{ role: "system", content: `${said}\n${described}` }, ...messages.slice(hasSystem ? 1 : 0)];
}

/**
 * The arguments of a call, a text or an object; what is left out, null or empty is {}.
 * @param {any} call
 * @returns {string | Record<string, unknown>}
 * @throws {PromptError} they are something else.
 */
export function readArguments(call) {
  const given = (call.function ?? call).arguments ?? "";
  const args = given === "" ? {} : given; // some programs send "" for no arguments
  if (typeof args !== "string" && !isObject(args)) refuseArguments(call, args);
  return args;
}

/**
 * Refuse arguments that are no object.
 * @param {any} call
 * @param {unknown} args
 * @returns {never}
 */
export function refuseArguments(call, args) {
  throw new PromptError(
    `the call of ${JSON.stringify(readName(call))} has the arguments ${JSON.stringify(args).slice(0, 80)} where an ` +
      "object is expected; write an object, or its JSON text.",
  );
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
 * Write a JSON list of pages as GLM-Z1-Rumination reads it; other results stay as they are.
 * @param {unknown} content
 */
function listPages(content) {
  const pages = typeof content === "string" ? readJson(content) : undefined;
  if (!Array.isArray(pages) || !pages.length || !pages.every(isPage)) return content;
  return pages.map(({ id, title, url, snippet }, place) => `【${id ?? place}†${title}†${url}\n${snippet}】`).join("\n\n");
}

/** @param {unknown} page */
function isPage(page) {
  return isObject(page) && ["title", "url", "snippet"].every((key) => typeof page[key] === "string");
}
