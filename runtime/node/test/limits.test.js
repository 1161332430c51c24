/** The folder's own limits of tokens, and the ids of tool calls. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { FolderError, PromptError, SamplingError, load } from "glm-runtime";

import { AnswerReader } from "../src/answer.js";
import { NameLineCalls } from "../src/dialects/name_line.js";
import { FOLDER, changeJson, collect, copyFolder } from "./folders.js";

const CONFIG = "generation_config.json";
const model = await load(FOLDER);

/** Load a copy whose generation_config.json has other limits. */
async function loadWith(t, limits) {
  const folder = await copyFolder(t);
  await changeJson(folder, CONFIG, (content) => Object.assign(content, limits));
  return load(folder);
}

async function count(model, length, options = {}) {
  const prompt = Array(length).fill(5);
  return (await collect(model.generate(prompt, { ignoreEos: true, ...options }))).token_ids.length;
}

test("max_new_tokens and max_length of the folder are obeyed", async (t) => {
  const limited = await loadWith(t, { max_new_tokens: 7 });
  assert.equal(await count(limited, 4), 7);
  assert.equal(await count(limited, 4, { maxNewTokens: 12 }), 12);
  assert.equal(await count(limited, 4, { maxLength: 13 }), 9);
  const total = await loadWith(t, { max_length: 20 });
  assert.equal(await count(total, 6), 14);
  assert.equal(await count(total, 6, { maxNewTokens: 2 }), 2);
  assert.equal(await count(await loadWith(t, { max_length: 20, max_new_tokens: 3 }), 6), 3);
});

test("null sets no limit besides the context", async (t) => {
  const limited = await loadWith(t, { max_new_tokens: 2 });
  const room = limited.manifest.model.contextLength - 1000;
  assert.equal(await count(limited, room + 997, { maxNewTokens: null }), 4);
});

test("a prompt as long as maxLength is refused", async () => {
  await assert.rejects(count(model, 9, { maxLength: 9 }), (error) => {
    assert.equal(error.constructor, PromptError);
    assert.match(error.message, /has 9 tokens where maxLength=9 is the limit .*; set maxNewTokens/);
    return true;
  });
  await assert.rejects(count(model, 9, { maxLength: 0 }), SamplingError);
});

test("a limit that is no count is refused", async (t) => {
  for (const value of [0, -1, 1.5, "7", true]) {
    await assert.rejects(loadWith(t, { max_new_tokens: value }), FolderError);
  }
});

test("calls have ids that differ within a conversation", () => {
  const form = { isChat: false, isThinking: false, dialect: new NameLineCalls(["add"]), numCalls: 2 };
  const reader = new AnswerReader(model.tokenizer, form, []);
  for (const token of model.tokenizer.encode('add\n{"a": 1}\nadd\n{"a": 2}')) reader.add(token);
  assert.deepEqual(reader.finish().toolCalls.map(({ id }) => id), ["call_2", "call_3"]);
  const call = { function: { name: "add", arguments: "{}" } };
  const messages = [
    { role: "user", content: "1 + 1" },
    { role: "assistant", content: "", tool_calls: [call, call] },
  ];
  assert.equal(model.prepareChat(messages, {}).form.numCalls, 2);
});
