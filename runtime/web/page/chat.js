/**
 * One conversation with one model: asks, shows the answer while it arrives, stops, regenerates and edits.
 *
 * `browser_model.js` and `server_model.js` are the two kinds of models.
 */

import { AnswerView } from "./answer_view.js";
import { Composer } from "./composer.js";
import { findOpenCalls, makeTitle, newConversation, toMessages } from "./conversation.js";
import { clearTurns } from "./conversation_view.js";
import { announce, disable, find, showProblem } from "./elements.js";
import { showQuestion } from "./question_view.js";
import { remember } from "./remembered.js";
import { askForResults, showResult } from "./results_view.js";
import { readOptions, readSystem } from "./settings_view.js";
import { Statistics } from "./statistics.js";

export const CURRENT = "glm-chat"; // key in session storage: id of the conversation of this tab

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Turn} Turn */

/**
 * @typedef {object} ChatPiece
 * @property {string} text
 * @property {string} reasoning
 * @property {readonly { id: string, name: string, arguments: string }[]} toolCalls  all calls so far
 * @property {string | null} finishReason
 * @property {import("./statistics.js").Usage} [usage]
 */

/**
 * @typedef {object} ChatModel
 * @property {(messages: import("glm-runtime/core").Message[], options: import("./settings_view.js").Options) => AsyncIterable<ChatPiece>} chat
 * @property {() => unknown} restart  forget what was computed for the current conversation
 * @property {(error: unknown) => boolean} isRefusal  whether an error means that the question must be changed
 * @property {(error: unknown) => boolean} isBroken  whether an error means that the model must be loaded again
 * @property {() => Promise<unknown>} reopen  load the model again
 */

/** Shows and changes the current conversation, and saves it after each change. */
export class Chat {
  #model;
  #keep;
  /** @type {Conversation} */ #conversation;
  /** @type {AbortController | null} */ #answering = null;
  #composer;

  /**
   * @param {ChatModel} model
   * @param {{ conversation: Conversation, save: (conversation: Conversation) => Promise<void> }} kept
   */
  constructor(model, { conversation, save }) {
    this.#model = model;
    this.#keep = save;
    this.#conversation = conversation;
    this.#composer = new Composer({ send: (text) => this.#send(text), stop: () => this.#answering?.abort() });
    this.#show();
    find("chat").hidden = false;
    this.#setBusy(false);
    find("message").focus();
  }

  get conversation() {
    return this.#conversation;
  }

  /**
   * Show another conversation, or a new one.
   * @param {Conversation} [conversation]
   */
  open(conversation = newConversation()) {
    this.#answering?.abort();
    this.#answering = null;
    this.#conversation = conversation;
    this.#show();
    showProblem("");
    this.#setBusy(false);
    find("message").focus();
    return this.#model.restart();
  }

  /**
   * Use another model for the next answer.
   * @param {ChatModel} model
   */
  use(model) {
    this.#model = model;
  }

  close() {
    this.#answering?.abort();
    this.#composer.close();
    this.#setBusy(false);
    find("chat").hidden = true;
    for (const id of ["message", "send", "new-chat", "show-settings", "show-chats"]) disable(id, true);
  }

  #show() {
    remember("sessionStorage", CURRENT, this.#conversation.id);
    clearTurns();
    for (const turn of this.#conversation.turns) this.#showTurn(turn);
    this.#askForResults();
  }

  /** @param {Turn} turn */
  #showTurn(turn) {
    if (turn.role === "user") {
      const actions = {
        edit: (/** @type {string} */ text) => this.#ask(text, this.#conversation.turns.indexOf(turn)),
        answer: () => this.#continue(this.#conversation.turns),
      };
      return void showQuestion(turn.content, actions);
    }
    if (turn.role === "tool") return showResult(turn.content);
    const view = new AnswerView();
    const toolCalls = (turn.tool_calls ?? []).map(({ id, function: call }) => ({ id, ...call }));
    view.add({ text: turn.content, reasoning: turn.reasoning_content ?? "", toolCalls });
    this.#finish(view, turn);
    return undefined;
  }

  /**
   * @param {AnswerView} view
   * @param {Turn} turn
   */
  #finish(view, turn) {
    view.finish(turn.facts ?? "", () => {
      const { turns } = this.#conversation;
      this.#continue(turns.slice(0, turns.indexOf(turn)));
    });
  }

  #askForResults() {
    const calls = this.#answering ? [] : findOpenCalls(this.#conversation.turns);
    askForResults(calls, (results) => {
      const turns = calls.map(({ id }, index) => ({ role: /** @type {const} */ ("tool"), content: results[index], tool_call_id: id }));
      this.#continue([...this.#conversation.turns, ...turns]);
    });
  }

  /** @param {string} text */
  #send(text) {
    if (this.#answering) return;
    message().value = "";
    this.#ask(text, this.#conversation.turns.length);
  }

  /**
   * Ask, in place of the turns from a place on.
   * @param {string} text
   * @param {number} place
   */
  #ask(text, place) {
    const { turns } = this.#conversation;
    return this.#continue([...turns.slice(0, place), { role: "user", content: text }], text);
  }

  /**
   * Answer a conversation that ends with a question or a result.
   * @param {readonly Turn[]} turns
   * @param {string} [question]  put into the message field if it is refused
   */
  async #continue(turns, question = "") {
    if (this.#answering) return;
    const conversation = this.#conversation;
    const before = conversation.turns;
    const controller = (this.#answering = new AbortController());
    conversation.title ||= makeTitle(question);
    this.#replace(turns);
    const view = new AnswerView();
    try {
      await this.#save(conversation);
      const turn = await this.#answer(conversation, view, controller.signal);
      conversation.turns.push(turn);
      if (conversation === this.#conversation) this.#finish(view, turn);
      announce(turn.tool_calls ? `The model calls ${turn.tool_calls.map((call) => call.function.name).join(", ")}.` : `Answer: ${view.text}`);
      await this.#save(conversation);
    } catch (error) {
      await this.#fail(error, { conversation, before, question, view });
    }
    if (this.#answering === controller) this.#answering = null;
    if (this.#composer.isClosed) return;
    this.#setBusy(this.#answering !== null);
    this.#askForResults();
  }

  /**
   * Show other turns of the conversation, while an answer begins.
   * @param {readonly Turn[]} turns
   */
  #replace(turns) {
    const hadFocus = find("chat").contains(document.activeElement); // on a button that disappears
    const before = this.#conversation.turns;
    this.#conversation.turns = [...turns];
    showProblem("");
    if (before.every((turn, place) => turn === turns[place])) {
      for (const turn of turns.slice(before.length)) this.#showTurn(turn);
      this.#askForResults();
    } else this.#show();
    this.#setBusy(true);
    if (hadFocus) find("stop").focus();
  }

  /**
   * Show an answer while it arrives. A stopped answer counts as an answer.
   * @param {Conversation} conversation
   * @param {AnswerView} view
   * @param {AbortSignal} signal
   * @returns {Promise<Turn>}
   */
  async #answer({ turns }, view, signal) {
    const statistics = new Statistics();
    try {
      const options = { ...readOptions(), signal };
      for await (const piece of this.#model.chat([...readSystem(), ...toMessages(turns)], options)) {
        statistics.add(piece);
        view.add(piece);
      }
    } catch (error) {
      if (!signal.aborted || this.#model.isBroken(error)) throw error;
      statistics.end("stopped");
    }
    return makeTurn(view, String(statistics));
  }

  /**
   * Show an error. A question without an answer returns to the message field.
   * @param {unknown} error
   * @param {{ conversation: Conversation, before: Turn[], question: string, view: AnswerView }} asked
   */
  async #fail(error, { conversation, before, question, view }) {
    const isCurrent = conversation === this.#conversation;
    const isLost = this.#model.isRefusal(error) || !view.text;
    if (isLost) {
      conversation.turns = before;
      view.remove();
    } else conversation.turns.push(makeTurn(view, "interrupted by an error"));
    if (isCurrent) {
      this.#show();
      if (isLost && !message().value) message().value = question;
    }
    await this.#save(conversation);
    if (this.#model.isBroken(error)) await this.#model.reopen();
    if (isCurrent) showProblem(error instanceof Error ? error.message : String(error));
  }

  /** @param {Conversation} conversation */
  async #save(conversation) {
    conversation.changedMs = Date.now();
    try {
      await this.#keep(conversation);
    } catch (error) {
      showProblem(`This conversation cannot be saved in the browser (${error}).`);
    }
  }

  /** @param {boolean} isBusy */
  #setBusy(isBusy) {
    const hadFocus = [find("send"), find("stop")].includes(/** @type {HTMLElement} */ (document.activeElement));
    disable("message", false);
    disable("send", isBusy);
    disable("new-chat", false);
    disable("show-settings", isBusy);
    disable("show-chats", false);
    find("send").hidden = isBusy;
    find("stop").hidden = !isBusy;
    find("turns").classList.toggle("is-busy", isBusy);
    if (hadFocus) find(isBusy ? "stop" : "message").focus();
  }
}

/** @returns {HTMLTextAreaElement} */
function message() {
  return find("message");
}

/**
 * @param {AnswerView} view
 * @param {string} facts
 * @returns {Turn}
 */
function makeTurn({ text, reasoning, calls }, facts) {
  return {
    role: "assistant",
    content: text,
    ...(reasoning ? { reasoning_content: reasoning } : {}),
    ...(calls.length ? { tool_calls: [...calls] } : {}),
    facts,
  };
}
