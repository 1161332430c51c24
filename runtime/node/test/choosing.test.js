/** Random numbers, generation options, reasoning and tool calls, compared with the Python runtime. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { load } from "glm-runtime";

import { Pcg64 } from "../src/random.js";
import { findCandidates, findLargest } from "../src/sampler.js";
import { resolveSettings } from "../src/settings.js";
import { ThinkingSplitter } from "../src/thinking.js";
import { NameLineCalls } from "../src/dialects/name_line.js";
import { ToolCallParser } from "../src/tool_calls.js";
import { FOLDER, cases, collect, withoutCases } from "./folders.js";

const model = await load(FOLDER);

test("the random numbers are numpy's for every seed", { skip: withoutCases }, () => {
  for (const { seed, numbers } of cases.random) {
    const generator = new Pcg64(BigInt(seed));
    assert.deepEqual(numbers.map(() => generator.random()), numbers, seed);
  }
});

test("without a seed, random numbers differ", () => {
  assert.notEqual(new Pcg64(null).random(), new Pcg64(null).random());
});

test("every option gives the tokens of Python", { skip: withoutCases }, async () => {
  for (const { options, prompt, answer } of cases.sampled) {
    if (typeof options.seed === "string") options.seed = BigInt(options.seed);
    const { tool_calls: _, ...found } = await collect(model.generate(prompt, options));
    assert.deepEqual(found, answer, `seed ${options.seed}`);
  }
});

test("the candidates equal those of a simple sort", () => {
  const generator = new Pcg64(7);
  for (const settings of [{ topK: 40 }, { topK: 700 }, { topP: 0.9 }, { topP: 0.9999 }, { topK: 40, topP: 0.5 }, { minP: 0.2 }]) {
    const scores = Float32Array.from({ length: 3000 }, () => Math.round(generator.random() * 800) / 100);
    const all = resolveSettings({ temperature: 1, topK: 0, topP: 1, minP: 0, ...settings }, model.defaults);
    const { ids } = findCandidates(scores, scores[findLargest(scores)], all);
    assert.deepEqual([...ids].sort((a, b) => a - b), sortNaively(scores, all));
  }
});

/** Top-k with ties, then top-p, then min-p, by sorting. */
function sortNaively(scores, { topK, topP, minP }) {
  let order = [...scores.keys()].sort((left, right) => scores[right] - scores[left] || left - right);
  if (topK) order = order.filter((id) => scores[id] >= scores[order[topK - 1]]);
  const weights = new Map(order.map((id) => [id, Math.fround(Math.exp(Math.fround(scores[id] - scores[order[0]])))]));
  if (topP < 1) {
    const total = order.reduce((sum, id) => sum + weights.get(id), 0);
    let reached = 0;
    order = order.filter((id) => {
      const isWanted = reached < topP * total;
      reached += weights.get(id);
      return isWanted;
    });
  }
  return order.filter((id) => weights.get(id) >= minP).sort((left, right) => left - right);
}

test("stop strings, reasoning limits and ignored end-of-sequence tokens", { skip: withoutCases }, async () => {
  for (const { options, messages, answer } of cases.chats) {
    assert.deepEqual(await collect(model.chat(messages, options)), answer, JSON.stringify(options));
  }
});

test("the prompt with tools equals Python's", { skip: withoutCases }, () => {
  for (const { messages, tools, token_ids: tokens } of cases.tool_prompts) {
    assert.deepEqual(model.prepareChat(messages, { tools }).promptIds, tokens);
  }
});

test("prompts without the users' control tokens, and with a begun answer, equal Python's", { skip: withoutCases }, () => {
  for (const { messages, options, token_ids: tokens, is_thinking: isThinking } of cases.prepared) {
    const { promptIds, form } = model.prepareChat(messages, options);
    assert.deepEqual(promptIds, tokens);
    assert.equal(form.isThinking, isThinking);
  }
});

test("tool calls are found in text of any chunk size", { skip: withoutCases }, () => {
  for (const { text, names, shown, calls } of cases.tool_texts) {
    for (const size of [1, 3, text.length]) {
      const parser = new ToolCallParser(new NameLineCalls(names));
      let found = "";
      for (let start = 0; start < text.length; start += size) found += parser.add(text.slice(start, start + size));
      const [rest, foundCalls] = parser.finish();
      assert.deepEqual({ shown: found + rest, calls: foundCalls }, { shown, calls }, text);
    }
  }
});

test("reasoning is separated from the answer in text of any chunk size", { skip: withoutCases }, () => {
  for (const { text, is_open: isOpen, reasoning, answer } of cases.thoughts) {
    for (const size of [1, 4, text.length]) {
      const splitter = new ThinkingSplitter(isOpen);
      const found = ["", ""];
      const take = (parts) => parts.forEach((part, i) => (found[i] += part));
      for (let start = 0; start < text.length; start += size) take(splitter.add(text.slice(start, start + size)));
      take(splitter.flush());
      assert.deepEqual(found, [reasoning, answer], JSON.stringify(text));
    }
  }
});

test("pieces contain whole characters", { skip: withoutCases }, () => {
  for (const { token_ids: tokens, parts } of cases.streams) {
    const stream = model.tokenizer.stream();
    assert.deepEqual([...tokens.map((token) => stream.add(token)), stream.flush()], parts);
  }
});
