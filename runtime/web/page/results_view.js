/** Results of tool calls: shows them, and asks for those that are missing. The page runs no tools itself. */

import { appendTurn, makeText } from "./conversation_view.js";
import { find, make } from "./elements.js";

/** @typedef {import("./conversation.js").Call} Call */

/** @param {string} text */
export function showResult(text) {
  const details = make("details", { className: "thinking", parts: [make("summary", { text: "Result of a tool" }), makeText(text)] });
  appendTurn("result", "Result of a tool", [details]);
}

/**
 * Ask for the results of tool calls below the conversation; nothing is shown if there are no calls.
 * @param {readonly Call[]} calls
 * @param {(results: string[]) => void} send
 */
export function askForResults(calls, send) {
  const form = find("results");
  form.replaceChildren();
  form.hidden = !calls.length;
  if (!calls.length) return;
  const fields = calls.map((call) => makeField(call));
  form.append(...fields.map(({ row }) => row), make("button", { className: "main", text: fields.length > 1 ? "Send results" : "Send result" }));
  form.onsubmit = (event) => {
    event.preventDefault();
    send(fields.map(({ field }) => field.value));
  };
}

/** @param {Call} call */
function makeField({ id, function: { name } }) {
  const field = make("textarea");
  field.id = `result-${id}`;
  field.dir = "auto";
  field.rows = 2;
  const label = make("label", { text: `Result of ${name}` });
  label.htmlFor = field.id;
  return { field, row: make("div", { parts: [label, field] }) };
}
