/**
 * Finds messages and tools that a chat template leaves out of the prompt.
 *
 * The conversation is rendered again with a number in place of each content and of each tool's name.
 * The text must contain these numbers. It is not searched for the contents themselves, because a
 * template may change them, and a question may contain a tool's name.
 */

import { PromptError } from "./errors.js";
import { isObject } from "./text_files.js";
import { findBuiltIn, readName } from "./tool_names.js";
import { strip } from "./white_space.js";

/** @typedef {import("./chat_messages.js").Message} Message */
/** @typedef {import("./chat_messages.js").Tool} Tool */

/**
 * Check that a template writes every message and every tool.
 * @param {readonly Message[]} messages  messages of `simplifyMessages`
 * @param {readonly Tool[]} tools
 * @param {(messages: readonly Message[], tools: readonly Tool[]) => string} render
 * @param {readonly string[]} known  names of tools that the template describes in its own words
 * @throws {PromptError} something is left out.
 */
export function requireWritten(messages, tools, render, known) {
  /** @type {string[]} */
  const refusals = [];
  const marked = messages.map((message, index) => markMessage(message, index + 1, refusals));
  const named = tools.map((tool) => (known.includes(readName(tool)) ? tool : markTool(tool, refusals)));
  let text;
  try {
    text = render(marked, named);
  } catch (error) {
    if (error instanceof PromptError) return; // the template reads a content, which cannot be replaced then
    throw error;
  }
  const missing = refusals.find((_, index) => !text.includes(makeNumber(index)));
  if (missing !== undefined) throw new PromptError(missing);
}

/**
 * @param {Message} message
 * @param {number} place
 * @param {string[]} refusals
 */
function markMessage(message, place, refusals) {
  const { role, content, metadata } = message;
  const marked = { ...message };
  if (typeof content === "string" && strip(content)) {
    marked.content = addMark(
      `the model's chat template does not write messages with the role ${JSON.stringify(role)} into the ` +
        `prompt (message ${place}); leave it out, or put its text into a user's message.`,
      refusals,
    );
  }
  if (role === "assistant" && typeof metadata === "string" && strip(metadata)) {
    marked.metadata = addMark(
      `the model's chat template does not write the metadata ${JSON.stringify(metadata)} into the prompt ` +
        `(message ${place}); write the call as tool_calls, or into the content.`,
      refusals,
    );
  }
  return marked;
}

/**
 * @param {Tool} tool
 * @param {string[]} refusals
 * @returns {Tool}
 */
function markTool(tool, refusals) {
  const number = addMark(
    `the model's chat template does not write the tool ${JSON.stringify(readName(tool))} into the prompt; ` +
      "leave the tools out, or describe them in a system message.",
    refusals,
  );
  if (findBuiltIn(tool)) return tool; // only the template itself can describe it
  if (isObject(tool.function)) return { ...tool, function: { ...tool.function, name: number } };
  return { ...tool, name: number };
}

/**
 * @param {string} refusal
 * @param {string[]} refusals
 */
function addMark(refusal, refusals) {
  refusals.push(refusal);
  return makeNumber(refusals.length - 1);
}

/**
 * A number that no template contains; all have the same number of digits.
 * @param {number} index
 */
function makeNumber(index) {
  return `90716${String(index).padStart(7, "0")}35`;
}
