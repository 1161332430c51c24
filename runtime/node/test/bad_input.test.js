/** Bad input gives an error with a class and a message; it never crashes. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { open, rm, symlink, truncate, rename, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import {
  FolderError,
  FormatVersionError,
  GenerationError,
  GlmRuntimeError,
  PromptError,
  SamplingError,
  load,
} from "glm-runtime";

import { KvCache } from "../src/kv_cache.js";
import { findLargest } from "../src/sampler.js";
import { FOLDER, changeJson, collect, copyFolder, replaceFile } from "./folders.js";

const model = await load(FOLDER);
const question = [{ role: "user", content: "Hello" }];
const MANIFEST = "glm_manifest.json";

/** Loading a folder fails with this class and message. */
async function refuses(folder, kind, words, options) {
  await assert.rejects(load(folder, options), (error) => {
    assert.equal(error.constructor, kind, error.stack);
    assert.match(error.message, words);
    return true;
  });
}

test("no folder, no manifest, a checkpoint", async (t) => {
  await refuses("/nowhere/at/all", FolderError, /is not a folder; pass a folder that glm-export wrote/);
  const folder = await copyFolder(t);
  await rm(join(folder, MANIFEST));
  await refuses(folder, FolderError, /has no glm_manifest\.json/);
  await (await open(join(folder, "model.safetensors"), "w")).close();
  await refuses(folder, FolderError, /is a checkpoint, not an exported folder; export it first/);
});

test("a folder that needs a newer onnxruntime, or does not say which", async (t) => {
  const folder = await copyFolder(t);
  await changeJson(folder, MANIFEST, (manifest) => (manifest.oldest_onnxruntime = "9.1"));
  await refuses(folder, FolderError, /onnxruntime-node is 1\.\d+\.\d+, but this folder needs ONNX Runtime 9\.1 or later/);
  await changeJson(folder, MANIFEST, (manifest) => (manifest.oldest_onnxruntime = "new"));
  await refuses(folder, FolderError, /oldest_onnxruntime is "new" where a version such as 1\.24 is expected/);
});

for (const name of ["model.onnx", "model.onnx.data", "tokenizer.json", "generation_config.json"]) {
  test(`${name} missing or truncated`, async (t) => {
    const folder = await copyFolder(t);
    await truncate(join(folder, name), 100);
    await refuses(folder, FolderError, new RegExp(`${name} has 100 bytes where the manifest says \\d+; copy`));
    await rm(join(folder, name));
    await refuses(folder, FolderError, new RegExp(`${name} is missing`));
  });
}

test("verify finds a changed byte by the SHA-256", async (t) => {
  const folder = await copyFolder(t);
  const file = await open(join(folder, "model.onnx.data"), "r+");
  await file.write(Buffer.from("?"), 0, 1, 1000);
  await file.close();
  await load(folder);
  await refuses(folder, FolderError, /model\.onnx\.data was changed: its SHA-256/, { verify: true });
});

test("a link that leaves the folder", async (t) => {
  const folder = await copyFolder(t);
  await mkdir(join(folder, "..", "elsewhere"));
  await rename(join(folder, "tokenizer.json"), join(folder, "..", "elsewhere", "tokenizer.json"));
  await symlink("../elsewhere/tokenizer.json", join(folder, "tokenizer.json"));
  await refuses(folder, FolderError, /tokenizer\.json is a link to a file outside of the folder/);
});

for (const [what, change, kind, words] of [
  ["another tool's", (m) => (m.format = "other"), FolderError, /another tool wrote it/],
  ["a newer format's", (m) => (m.format_version = 2), FormatVersionError, /format_version 2 but this package reads up to 1; upgrade/],
  ["no version", (m) => (m.format_version = "1"), FolderError, /format_version "1" where a positive integer/],
  ["no files", (m) => delete m.files, FolderError, /files is undefined where an object is expected/],
  ["a path", (m) => (m.files["../x"] = m.files["model.onnx"]), FolderError, /files contains the name "\.\.\/x" where a file name without a folder/],
  ["a bad size", (m) => (m.files["model.onnx"].size_bytes = -1), FolderError, /size_bytes is -1 where a whole number of 0 or more/],
  ["a bad hash", (m) => (m.files["model.onnx"].sha256 = "AB"), FolderError, /sha256 is "AB" where 64 lower-case/],
  ["no layers", (m) => (m.model.num_layers = 0), FolderError, /model\.num_layers is 0 where a whole number of 1 or more/],
  ["a bad end", (m) => (m.model.eos_token_ids = [99999]), FolderError, /eos_token_ids contains 99999 where ids below/],
  ["a bad vocabulary", (m) => (m.model.tokenizer_vocab_size = 99999), FolderError, /tokenizer_vocab_size is 99999 where at most/],
  ["a bad cache", (m) => (m.model.cache_dtype = "int3"), FolderError, /cache_dtype is "int3" where float32, float16 or int8/],
  ["more layers than the graph", (m) => (m.model.num_layers = 9), FolderError, /has no tensor "past_key_values\.4\.key"/],
  ["other heads than the graph", (m) => (m.model.head_dim = 32), FolderError, /past_key_values\.0\.key is float32 .* requires float32/],
]) {
  test(`manifest: ${what}`, async (t) => {
    const folder = await copyFolder(t);
    await changeJson(folder, MANIFEST, change);
    await refuses(folder, kind, words);
  });
}

for (const [name, content, words] of [
  [MANIFEST, Buffer.from([0x7b, 0xff, 0x7d]), /glm_manifest\.json is not UTF-8 text/],
  [MANIFEST, "{", /glm_manifest\.json is not JSON/],
  [MANIFEST, "[]", /glm_manifest\.json is not a JSON object/],
  ["tokenizer.json", Buffer.from([0x7b, 0xff, 0x7d]), /tokenizer\.json is not UTF-8 text/],
  ["tokenizer.json", "{}", /@huggingface\/tokenizers cannot load tokenizer\.json/],
  ["chat_template.jinja", "{% if", /chat_template\.jinja is not a valid Jinja template/],
  ["chat_template.jinja", Buffer.from([0xff]), /chat_template\.jinja is not UTF-8 text/],
  ["generation_config.json", '{"do_sample": true, "top_p": "x"}', /top_p is "x" where a number is expected/],
  [MANIFEST, `{"format": "glm-export-folder", "format_version": 1, "model": {"vocab_size": 1${"0".repeat(400)}}}`, /vocab_size is too large a number where a whole/],
  ["generation_config.json", '{"do_sample": true, "top_p": 7}', /generation_config\.json: topP is 7 where above 0/],
  ["model.onnx", "no graph", /onnxruntime-node cannot load model\.onnx/],
  ["model.onnx.data", "no weights", /onnxruntime-node cannot load model\.onnx/],
]) {
  test(`${name} holds ${JSON.stringify(content.toString("latin1"))}`, async (t) => {
    const folder = await copyFolder(t);
    await replaceFile(folder, name, content);
    await refuses(folder, FolderError, words);
  });
}

for (const threads of [0, 1025, 1.5, "2"]) {
  const words = new RegExp(`threads is ${threads} where 1 to 1024 is expected`);
  test(`${threads} threads`, () => refuses(FOLDER, GlmRuntimeError, words, { threads }));
}

test("an option that load does not have", () =>
  refuses(FOLDER, GlmRuntimeError, /load\(\) has no option "ropeScaling", only threads and verify/, { ropeScaling: "yarn" }));

for (const [what, ask, words] of [
  ["an empty prompt", () => model.generate(""), /the prompt is empty/],
  ["a prompt beyond the context", () => model.generate("the ".repeat(5000)), /the sequence has \d{4,} tokens but the model's context length is 4096/],
  ["an id of padding", () => model.generate([1, 4200]), /contains the token id 4200 where ids below 4190/],
  ["half a character", () => model.generate("\ud83d"), /not valid Unicode/],
  ["no messages", () => model.chat("Hello"), /messages must be a list/],
  ["an empty conversation", () => model.chat([]), /the conversation is empty; pass at least one message/],
  ["a content that is no text", () => model.chat([{ role: "user", content: 5 }]), /message 1 has the content 5 where text is/],
  ["a part that is no text", () => model.chat([{ role: "user", content: [{ type: "image_url" }] }]), /type "image_url" where only/],
  ["a tool without a name", () => model.chat(question, { tools: [{}] }), /a tool has the name undefined/],
  ["thinking that is a text", () => model.chat(question, { enableThinking: "no" }), /enableThinking is "no" where true or false/],
  ["sanitizing that is a number", () => model.chat(question, { isSanitized: 1 }), /isSanitized is 1 where true or false/],
  ["continuing that is a text", () => model.chat(question, { continuesAnswer: "" }), /continuesAnswer is "" where true or false/],
  ["a template that is a number", () => model.chat(question, { template: 5 }), /template is 5 where the name of a template/],
  ["tools that are a text", () => model.chat(question, { tools: "get_verse" }), /tools is "get_verse" where a list of objects/],
  ["a tool twice", () => model.chat(question, { tools: [{ name: "a" }, { name: "a" }] }), /two tools are named "a"/],
]) {
  test(what, () => {
    assert.throws(ask, (error) => error instanceof PromptError && words.test(error.message));
  });
}

test("a folder without a chat template", async (t) => {
  const folder = await copyFolder(t);
  await rm(join(folder, "chat_template.jinja"));
  await changeJson(folder, MANIFEST, (manifest) => delete manifest.files["chat_template.jinja"]);
  await changeJson(folder, "tokenizer_config.json", (config) => delete config.chat_template);
  const base = await load(folder);
  assert.throws(() => base.chat(question), /has no chat template, so messages cannot be rendered/);
  assert.equal((await collect(base.generate("In the", { maxNewTokens: 3 }))).token_ids.length, 3);
});

test("a template that leaves out the tools", async (t) => {
  const folder = await copyFolder(t);
  await replaceFile(folder, "chat_template.jinja", "{{ messages[0].content }}");
  const other = await load(folder);
  assert.throws(() => other.chat(question, { tools: [{ name: "get_verse" }] }), /does not write the tool "get_verse"/);
});

for (const [options, words] of [
  [{ temperature: -1 }, /temperature is -1 where a number from 0 \(greedy\) to 1000000/],
  [{ temperature: 1e308 }, /temperature is 1e\+308/],
  [{ temperature: NaN }, /temperature is NaN/],
  [{ topK: 1.5 }, /topK is 1\.5/],
  [{ topK: 1e30 }, /topK is 1e\+30 where a whole number from 0 \(keep all\) to 2\^53 - 1 is/],
  [{ topP: 0 }, /topP is 0 where above 0/],
  [{ minP: 2 }, /minP is 2 where from 0 to 1/],
  [{ repetitionPenalty: 5e-324 }, /repetitionPenalty is 5e-324 where a number from 0\.01 to 1000000/],
  [{ presencePenalty: "1" }, /presencePenalty is "1"/],
  [{ frequencyPenalty: Infinity }, /frequencyPenalty is Infinity/],
  [{ presencePenalty: -1e308 }, /presencePenalty is -1e\+308 where a number from -1000000 to 1000000/],
  [{ logitBias: [[1, 1e308]] }, /logitBias is \[1,1e\+308\]/],
  [{ seed: -1 }, /seed is -1/],
  [{ maxNewTokens: 0 }, /maxNewTokens is 0 where a whole number from 1 to/],
  [{ maxThinkingTokens: -1 }, /maxThinkingTokens is -1 where a whole number from 0 to/],
  [{ stop: "the" }, /stop is "the" where a list of non-empty strings/],
  [{ stop: [""] }, /stop is \[""\] where a list of non-empty strings/],
  [{ logitBias: [[1, NaN]] }, /logitBias is \[1,null\]/],
  [{ logitBias: [[4190, 1]] }, /logitBias contains the token id 4190 where ids below 4190/],
  [{ ignoreEos: "no" }, /ignoreEos is "no" where true or false/],
  [{ signal: {} }, /signal is .* where an AbortSignal/],
  [{ dry: {} }, /the option "dry" is unknown in JavaScript, where the options are temperature, .* or use the Python runtime/],
  [{ max_new_tokens: 3 }, /the option "max_new_tokens" is unknown/],
]) {
  test(`option ${Object.keys(options)} = ${Object.values(options).map(String)}`, () => {
    assert.throws(() => model.chat(question, options), (error) => {
      return error instanceof SamplingError && words.test(error.message);
    });
  });
}

test("logits that are no numbers", () => {
  for (const logits of [[1, NaN, 2], [-Infinity, -Infinity], [1, Infinity]]) {
    assert.throws(() => findLargest(Float32Array.from(logits)), GenerationError);
  }
});

test("no memory for the cache", () => {
  const cache = new KvCache({ ...model.manifest.model, contextLength: 2 ** 40 }, model.graph.Tensor);
  cache.reserve(300);
  const { buffers, capacity } = cache;
  assert.throws(() => cache.reserve(2 ** 38), (error) => {
    return error instanceof GenerationError && /not enough memory for the KV cache of/.test(error.message);
  });
  assert.equal(cache.buffers, buffers);
  assert.equal(cache.capacity, capacity);
});

const onLinux = process.platform === "linux" ? false : "memory limits need Linux";

test("onnxruntime runs out of memory: an error, and the process continues", { skip: onLinux }, () => {
  const script = new URL("out_of_memory.js", import.meta.url).pathname;
  const { status, stdout, stderr } = spawnSync(process.execPath, [script], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^GenerationError: .*\nstill here: \d+ tokens\n$/);
});

test("onnxruntime fails: an error, and the session continues", async () => {
  const session = model.newSession();
  const run = model.graph.run;
  const pieces = session.chat(question, { temperature: 0, maxNewTokens: 5 });
  await pieces.next();
  model.graph.run = () => Promise.reject(new Error("Failed to allocate memory"));
  await assert.rejects(pieces.next(), /onnxruntime failed at token \d+ \(Failed to allocate memory\)/);
  model.graph.run = run;
  const options = { temperature: 0, maxNewTokens: 5 };
  assert.deepEqual(await collect(session.chat(question, options)), await collect(model.chat(question, options)));
});
