/** A conversation as it is kept in the browser, and the messages of it that a model gets. */

const TITLE_CHARACTERS = 60;

/** @typedef {{ id: string, type: "function", function: { name: string, arguments: string } }} Call  a tool call in OpenAI's format */

/**
 * A message in OpenAI's format, and what the page shows beside it.
 * @typedef {object} Turn
 * @property {"user" | "assistant" | "tool"} role
 * @property {string} content
 * @property {string} [reasoning_content]
 * @property {Call[]} [tool_calls]
 * @property {string} [tool_call_id]
 * @property {string} [facts]  token count, speed, and how the answer ended; never sent to a model
 */

/**
 * @typedef {object} Conversation
 * @property {string} id
 * @property {string} title  the beginning of the first question, or what the user wrote instead
 * @property {number} changedMs  time of the last change in milliseconds since 1970
 * @property {Turn[]} turns
 */

/** @returns {Conversation} */
export function newConversation() {
  // Not crypto.randomUUID, which browsers do not offer to pages over plain http.
  const id = Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16)).join("-");
  return { id, title: "", changedMs: Date.now(), turns: [] };
}

/**
 * @param {readonly Turn[]} turns
 * @returns {import("glm-runtime/core").Message[]}
 */
export function toMessages(turns) {
  return turns.map(({ facts: _, ...message }) => message);
}

/**
 * The tool calls at the end of a conversation, which wait for their results.
 * @param {readonly Turn[]} turns
 * @returns {readonly Call[]}
 */
export function findOpenCalls(turns) {
  return turns.at(-1)?.tool_calls ?? [];
}

/** @param {string} question */
export function makeTitle(question) {
  const line = question.trim().split("\n")[0];
  const characters = [...line];
  return characters.length > TITLE_CHARACTERS ? `${characters.slice(0, TITLE_CHARACTERS - 1).join("")}…` : line;
}
