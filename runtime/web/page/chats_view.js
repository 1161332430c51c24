/** The list of kept conversations: opens, renames, exports and deletes them. */

import { newConversation, toMessages } from "./conversation.js";
import { find, make, makeButton } from "./elements.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */

const WIDE = matchMedia("(min-width: 64rem)"); // as in chats.css: the list stands beside the conversation

/** Reads the store at each change, since other tabs change it, too. */
export class ChatsView {
  #store;
  #chat;

  /**
   * @param {import("./conversation_store.js").ConversationStore} store
   * @param {() => import("./chat.js").Chat | null} chat  the chat of the open model
   */
  constructor(store, chat) {
    this.#store = store;
    this.#chat = chat;
    find("new-chat").addEventListener("click", () => this.#open(newConversation()));
    find("show-chats").addEventListener("click", () => this.#setShown(find("show-chats").ariaExpanded !== "true"));
    WIDE.addEventListener("change", () => this.#setShown(WIDE.matches && chat() !== null));
  }

  /** Show the list where it has room. */
  start() {
    this.#setShown(WIDE.matches);
    return this.refresh();
  }

  end() {
    this.#setShown(false);
  }

  async refresh() {
    const all = await this.#store.list();
    find("chats-hint").textContent = all.length ? "" : "No chats yet.";
    find("chats-list").replaceChildren(...all.map((one) => this.#makeItem(one)));
  }

  /** @param {Conversation} conversation */
  save = async (conversation) => {
    await this.#store.save(conversation);
    await this.refresh();
  };

  /** @param {Conversation} conversation */
  #makeItem(conversation) {
    const open = makeButton(conversation.title, () => this.#open(conversation));
    open.className = "chat-title";
    open.dir = "auto";
    const item = make("li", { parts: [open] });
    if (conversation.id !== this.#chat()?.conversation.id) return item;
    open.setAttribute("aria-current", "true");
    const actions = [
      makeButton("Rename", () => this.#startRename(item, conversation), "Rename this chat"),
      makeButton("Export", () => exportConversation(conversation), "Export this chat as JSON"),
      makeButton("Delete", () => this.#delete(conversation), "Delete this chat"),
    ];
    item.append(make("div", { className: "chat-actions", parts: actions }));
    return item;
  }

  /** @param {Conversation} conversation */
  async #open(conversation) {
    if (!WIDE.matches) this.#setShown(false);
    this.#chat()?.open(conversation);
    await this.refresh();
  }

  /**
   * Show a field in place of the title.
   * @param {HTMLElement} item
   * @param {Conversation} conversation
   */
  #startRename(item, conversation) {
    const field = make("input");
    field.value = conversation.title;
    field.required = true;
    field.setAttribute("aria-label", "Title of this chat");
    const form = make("form", { className: "row", parts: [field, make("button", { text: "Save" })] });
    const finish = async () => {
      await this.refresh();
      /** @type {HTMLElement | null} */ (find("chats-list").querySelector("[aria-current]"))?.focus();
    };
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const current = this.#chat()?.conversation;
      const renamed = current?.id === conversation.id ? current : conversation; // an answer may have been added since
      renamed.title = field.value.trim() || renamed.title;
      await this.#store.save(renamed);
      await finish();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing) return;
      event.stopPropagation(); // it would also stop an answer
      finish();
    });
    item.replaceChildren(form);
    field.select();
  }

  /** @param {Conversation} conversation */
  async #delete(conversation) {
    if (!confirm(`Delete the chat "${conversation.title}"? This cannot be undone.`)) return;
    await this.#chat()?.open();
    await this.#store.delete(conversation.id);
    await this.refresh();
  }

  /** @param {boolean} isShown */
  #setShown(isShown) {
    find("chats").hidden = !isShown;
    find("show-chats").setAttribute("aria-expanded", String(isShown));
  }
}

/**
 * Download a conversation as JSON, with messages in OpenAI's format.
 * @param {Conversation} conversation
 */
function exportConversation({ title, turns }) {
  const content = JSON.stringify({ title, messages: toMessages(turns) }, null, 2);
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  link.download = `${title.replace(/[^\p{Letter}\p{Number}]+/gu, " ").trim() || "chat"}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
}
