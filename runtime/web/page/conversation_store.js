/** Keeps conversations in the browser's IndexedDB, or in memory if the browser does not allow it. */

import { openDB } from "idb";

const TABLE = "conversations";

/** @typedef {import("./conversation.js").Conversation} Conversation */

/** The conversations of this page. Another copy of the page at another path of the same origin has its own. */
export class ConversationStore {
  #database;
  /** @type {Map<string, Conversation>} */ #inMemory = new Map();

  /** @param {import("idb").IDBPDatabase | null} database */
  constructor(database) {
    this.#database = database;
  }

  static async open() {
    const name = `glm-chats ${new URL(".", document.baseURI).pathname}`;
    try {
      const upgrade = (/** @type {import("idb").IDBPDatabase} */ database) => void database.createObjectStore(TABLE, { keyPath: "id" });
      return new ConversationStore(await openDB(name, 1, { upgrade }));
    } catch {
      return new ConversationStore(null); // for example in a private window
    }
  }

  /** Whether the conversations are still there after a reload. */
  get isKept() {
    return this.#database !== null;
  }

  /** @returns {Promise<Conversation[]>} the last changed first */
  async list() {
    const all = this.#database ? await this.#database.getAll(TABLE) : [...this.#inMemory.values()];
    return all.sort((one, other) => other.changedMs - one.changedMs);
  }

  /**
   * @param {string} id
   * @returns {Promise<Conversation | undefined>}
   */
  async find(id) {
    return this.#database ? this.#database.get(TABLE, id) : this.#inMemory.get(id);
  }

  /**
   * Keep a conversation; one without turns is deleted.
   * @param {Conversation} conversation
   */
  async save(conversation) {
    if (!conversation.turns.length) return this.delete(conversation.id);
    if (this.#database) await this.#database.put(TABLE, conversation);
    else this.#inMemory.set(conversation.id, conversation);
  }

  /** @param {string} id */
  async delete(id) {
    this.#inMemory.delete(id);
    await this.#database?.delete(TABLE, id);
  }
}
