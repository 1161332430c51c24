/** The page on a server: the models are the server's, and all answers are computed there. */

import { CURRENT, Chat } from "./chat.js";
import { ChatsView } from "./chats_view.js";
import { newConversation } from "./conversation.js";
import { ConversationStore } from "./conversation_store.js";
import { find, make, showProblem } from "./elements.js";
import { askForKey, prepareKey } from "./key_view.js";
import { recall, remember } from "./remembered.js";
import { Connection } from "./server_connection.js";
import { ServerModel } from "./server_model.js";
import { prepareSettings } from "./settings_view.js";

const LAST_MODEL = "glm-model"; // key in local storage

/** @typedef {{ id: string, context_length?: number }} ListedModel  an entry of `GET /v1/models` */

const connection = new Connection(askForKey);
const store = await ConversationStore.open();
/** @type {Chat | null} */ let chat = null;
const chats = new ChatsView(store, () => chat);

/** List the models, and start a chat with the one that was chosen last. */
async function start() {
  showProblem("");
  find("retry").hidden = true;
  try {
    const { data } = await (await connection.send("v1/models")).json();
    showModels(data);
    const conversation = (await store.find(recall("sessionStorage", CURRENT) ?? "")) ?? newConversation();
    chat = new Chat(chooseModel(data), { conversation, save: chats.save });
    await chats.start();
  } catch (error) {
    showProblem(error instanceof Error ? error.message : String(error));
    find("retry").hidden = false;
  }
}

/** @param {ListedModel[]} models */
function showModels(models) {
  const select = /** @type {HTMLSelectElement} */ (find("model"));
  select.replaceChildren(...models.map(({ id }) => new Option(id)));
  const last = recall("localStorage", LAST_MODEL);
  if (models.some(({ id }) => id === last)) select.value = last ?? "";
  select.hidden = false;
  select.onchange = () => {
    remember("localStorage", LAST_MODEL, select.value);
    chat?.use(chooseModel(models));
  };
}

/** @param {ListedModel[]} models */
function chooseModel(models) {
  const name = /** @type {HTMLSelectElement} */ (find("model")).value;
  const context = models.find(({ id }) => id === name)?.context_length;
  const facts = [`${name} on this server`];
  if (context) facts.push(`context of ${context.toLocaleString("en")} tokens`);
  if (!store.isKept) facts.push("this browser keeps no chats");
  find("facts").textContent = `${facts.join("; ")}.`;
  find("change-key").hidden = !connection.hasKey;
  return new ServerModel(connection, name);
}

prepareSettings();
prepareKey();
find("retry").addEventListener("click", start);
find("change-key").addEventListener("click", () => connection.changeKey());
await start();
