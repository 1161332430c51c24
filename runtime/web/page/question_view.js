/** Shows one question, and edits it in place. */

import { appendTurn, makeText } from "./conversation_view.js";
import { make, makeButton } from "./elements.js";

/**
 * @typedef {object} QuestionActions
 * @property {(text: string) => void} edit  ask this instead
 * @property {() => void} answer  answer the question, which has no answer
 */

/**
 * @param {string} text
 * @param {QuestionActions} actions
 * @returns {HTMLElement}
 */
export function showQuestion(text, actions) {
  const words = makeText(text);
  const edit = makeButton("Edit", () => startEdit(item, text, actions.edit), "Edit this question");
  const answer = makeButton("Answer", actions.answer, "Answer this question");
  edit.className = "action";
  answer.className = "action only-last";
  const item = appendTurn("asked", "You", [words, make("div", { className: "facts", parts: [edit, answer] })]);
  return item;
}

/**
 * Show a text field in place of the question.
 * @param {HTMLElement} item
 * @param {string} text
 * @param {(text: string) => void} send
 */
function startEdit(item, text, send) {
  const field = make("textarea");
  field.value = text;
  field.dir = "auto";
  field.setAttribute("aria-label", "Question; what follows it is replaced");
  const cancel = makeButton("Cancel", () => {
    form.remove();
    item.classList.remove("is-edited");
    item.querySelector("button")?.focus();
  });
  const save = make("button", { className: "main", text: "Send" });
  const form = make("form", { className: "edit", parts: [field, make("div", { className: "row", parts: [cancel, save] })] });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim()) send(field.value);
  });
  form.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Escape") cancel.click();
    if (event.key === "Enter" && event.ctrlKey) form.requestSubmit();
  });
  item.classList.add("is-edited");
  item.append(form);
  field.focus();
  form.scrollIntoView({ block: "nearest" });
}
