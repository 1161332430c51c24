/** Prompts of other templates than the folder's, which tests/hosts/test_node_templates.py passes. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { ChatTemplate } from "../src/chat_template.js";
import { PromptError } from "../src/errors.js";
import { Tokenizer } from "../src/tokenizer.js";
import { ToolCallParser } from "../src/tool_calls.js";

const path = process.env.GLM_TEMPLATE_CASES;
const { rendered = [], written = [], called = [], tokenizer, decoded = [] } = path ? JSON.parse(readFileSync(path, "utf8")) : {};

for (const { name, source, messages, tools, thinking, isAnswerNext, continuesAnswer, expected } of rendered) {
  test(name, () => {
    const template = new ChatTemplate(source);
    const options = { tools, enableThinking: thinking ?? undefined, continuesAnswer };
    if (expected !== null) assert.equal(template.render(messages, options, isAnswerNext), expected);
    else assert.throws(() => template.render(messages, options, isAnswerNext), PromptError);
  });
}

for (const { name, source, messages, tools, words } of written) {
  test(name, () => {
    const template = new ChatTemplate(source);
    if (words === null) template.requireWritten(messages, { tools });
    else assert.throws(() => template.requireWritten(messages, { tools }), { message: new RegExp(words) });
  });
}

for (const source of ["{{ messages[0].title | upper }}", "{{ messages[0].title.strip() }}", "{{ 'a' + b }}"]) {
  test(`what a template misses is said in our words: ${source}`, () => {
    const template = new ChatTemplate(source);
    assert.throws(() => template.render([{ role: "user", content: "x" }]), {
      message: /template reads a value that these messages do not have; give every message a content/,
    });
  });
}

test("a template is chosen by its name", () => {
  const template = new ChatTemplate("D", {}, { default: "D", rag: "R{{ messages[0].content }}" });
  const messages = [{ role: "user", content: "x" }];
  assert.equal(template.choose().render(messages), "D");
  assert.equal(template.choose("rag").render(messages), "Rx");
  assert.throws(() => template.choose("toString"), { message: /"toString" was requested but the folder has default, rag;/ });
});

for (const { source, tools, rows } of called) {
  test(`calls are those that Python finds: ${source.slice(0, 60)}`, () => {
    const dialect = new ChatTemplate(source).chooseDialect(tools);
    for (const { text, shown, calls } of rows) {
      for (const size of [1, 5, text.length]) {
        const parser = new ToolCallParser(dialect);
        let found = "";
        for (let start = 0; start < text.length; start += size) found += parser.add(text.slice(start, start + size));
        const [rest, foundCalls] = parser.finish();
        assert.deepEqual({ shown: found + rest, calls: foundCalls }, { shown, calls }, JSON.stringify(text));
      }
    }
  });
}

test("SentencePiece's bytes are decoded as in Python", () => {
  const made = tokenizer && new Tokenizer(tokenizer);
  for (const { ids, text } of decoded) assert.equal(made.decode(ids), text, JSON.stringify(text));
});
