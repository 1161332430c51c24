/** Bad input gives an error message, and the page continues: it neither crashes nor hangs. */

import assert from "node:assert/strict";
import { open as openFile, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";

import {
  DIST,
  EXACT_FOLDER,
  answer,
  ask,
  changeManifest,
  choose,
  copyFolder,
  exhaustive,
  forgetWorker,
  launch,
  open,
  readVectors,
  replaceFile,
  test,
  visit,
} from "./browser.js";

const browser = await launch();
const { vectors, max_new_tokens: maxNewTokens } = await readVectors(EXACT_FOLDER);
const [{ messages, greedy }] = vectors;
const MANIFEST = "glm_manifest.json";
const DATA = "model.onnx.data";
const PAGES = 640; // of WebAssembly's memory, 40 MB: room for the weights and short prompts

async function flipByte(folder) {
  const file = await openFile(join(folder, DATA), "r+");
  await file.write(Buffer.from("?"), 0, 1, 1000);
  await file.close();
}

const FOLDERS = [
  ["no manifest", (f) => rm(join(f, MANIFEST)), "AbsentError", /bad\/glm_manifest\.json is missing; enter the address of a folder/, false],
  ["a missing file", (f) => rm(join(f, "tokenizer.json")), "FolderError", /bad\/tokenizer\.json is missing/, false],
  ["missing weights", (f) => rm(join(f, DATA)), "FolderError", /bad\/model\.onnx\.data is missing/],
  ["truncated weights", (f) => truncate(join(f, DATA), 100), "FolderError", /model\.onnx\.data has 100 bytes where the manifest says \d+; copy/],
  ["longer weights", (f) => writeFile(join(f, DATA), "more", { flag: "a" }), "FolderError", /model\.onnx\.data has more than the \d+ bytes in the manifest/],
  ["a changed byte", flipByte, "FolderError", /model\.onnx\.data was changed: its SHA-256 differs from the manifest/],
  ["a newer format", (f) => changeManifest(f, (m) => (m.format_version = 2)), "FormatVersionError", /format_version 2 but this package reads up to 1; upgrade/, false],
  ["another tool's", (f) => changeManifest(f, (m) => (m.format = "other")), "FolderError", /another tool wrote it/, false],
  ["a path in the manifest", (f) => changeManifest(f, (m) => (m.files["../x"] = m.files["model.onnx"])), "FolderError", /files contains the name "\.\.\/x"/, false],
  ["a name that is taken", (f) => changeManifest(f, (m) => (m.files["stored.json"] = m.files["model.onnx"])), "FolderError", /files contains the name "stored\.json", which this page uses/, false],
  ["the name of half a file", (f) => changeManifest(f, (m) => (m.files["model.onnx.part"] = m.files["model.onnx"])), "FolderError", /files contains the name "model\.onnx\.part"/, false],
  ["a web page for a manifest", (f) => writeFile(join(f, MANIFEST), "<!doctype html>"), "AbsentError", /is a web page where JSON is expected/, false],
  ["a manifest that is no UTF-8", (f) => writeFile(join(f, MANIFEST), Buffer.from([0x7b, 0xff])), "FolderError", /glm_manifest\.json is not UTF-8 text/, false],
  ["a manifest that is no JSON", (f) => writeFile(join(f, MANIFEST), "{"), "FolderError", /glm_manifest\.json is not JSON/, false],
  ["a tokenizer that is no UTF-8", (f) => replaceFile(f, "tokenizer.json", Buffer.from([0x7b, 0xff])), "FolderError", /tokenizer\.json is not UTF-8 text/],
  ["a broken template", (f) => replaceFile(f, "chat_template.jinja", "{% if"), "FolderError", /not a valid Jinja template/],
  ["a broken graph", (f) => replaceFile(f, "model.onnx", "no graph"), "FolderError", /onnxruntime-web cannot load model\.onnx/],
  ["weights of another graph", (f) => replaceFile(f, DATA, "no weights"), "FolderError", /onnxruntime-web cannot load model\.onnx/],
  ["more layers than the graph", (f) => changeManifest(f, (m) => (m.model.num_layers = 9)), "FolderError", /has no tensor "past_key_values\.4\.key"/],
  ["weights beyond what WebAssembly addresses", (f) => changeManifest(f, (m) => (m.files[DATA].size_bytes = 5e9)), "TooLargeError", /needs about 5\.\d\d GB of memory where WebAssembly offers 4\.29 GB; run it with Python/, false],
];

test("broken folders: each gives an error message, and the next folder answers", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER } });
  for (const [what, damage, kind, words, isFetched = true] of FOLDERS) {
    await t.test(what, async (inner) => {
      server.places["/bad/"] = await copyFolder(inner);
      await damage(server.places["/bad/"]);
      server.requests = [];
      const { error, message } = await open(page, "bad/");
      assert.equal(error, kind, message);
      assert.match(message, words);
      assert.equal(server.requests.some(({ path }) => path === `/bad/${DATA}`), isFetched);
    });
  }
  assert.ok((await open(page, "exact/")).label);
  assert.deepEqual(await answer(page, messages, { temperature: 0, maxNewTokens }), greedy);
});

test("picked: a checkpoint, and a folder without files of ours", async (t) => {
  const { page } = await visit(t, browser, { places: { "/": DIST } });
  const checkpoint = await copyFolder(t);
  await rm(join(checkpoint, MANIFEST));
  await page.setInputFiles("#pick", checkpoint);
  await page.locator("#problem:has-text('copy/glm_manifest.json is missing; pick a folder that glm-export wrote')").waitFor();
  await writeFile(join(checkpoint, "model.safetensors"), "");
  await page.setInputFiles("#pick", checkpoint);
  await page.locator("#problem:has-text('copy is a checkpoint, not an exported folder')").waitFor();
  assert.ok(await page.locator("#models").isVisible());
});

test("no server, and no address", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST }, expected: /ERR_CONNECTION_REFUSED/ });
  for (const [address, kind, words] of [
    ["http://127.0.0.1:1/x/", "UnreachableError", /cannot be reached .*check the address and the connection/],
    ["ftp://example.org/x/", "FolderError", /is not the address of a folder; enter an address that begins with https/],
    [`${server.address}nothing/`, "AbsentError", /nothing\/glm_manifest\.json is missing/],
  ]) {
    const { error, message } = await open(page, address);
    assert.equal(error, kind, message);
    assert.match(message, words);
  }
});

test("the page's Content-Security-Policy applies to the worker", async (t) => {
  // This name resolves to the test server, so only the policy prevents the request.
  const other = await launch(["--host-resolver-rules=MAP glm.example 127.0.0.1"]);
  const places = { "/": DIST, "/exact/": EXACT_FOLDER };
  const { page, server } = await visit(t, other, { places, expected: /Content Security Policy/ });
  server.hasCors = true;
  server.requests = [];
  const { error } = await open(page, `http://glm.example:${server.port}/exact/`);
  assert.equal(error, "UnreachableError");
  assert.deepEqual(server.requests.filter(({ path }) => path.startsWith("/exact/")), []);
  assert.ok((await open(page, `http://127.0.0.1:${server.port}/exact/`)).label);
});

test("prompts and options: the question is not lost", async (t) => {
  const { page } = await visit(t, browser, { places: { "/": DIST, "/model/": EXACT_FOLDER } });
  const long = "the ".repeat(5000);
  await page.fill("#message", long);
  await page.keyboard.press("Enter");
  await page.locator("#problem:has-text('tokens but the model\\'s context length is 4096; shorten the prompt')").waitFor();
  assert.equal(await page.inputValue("#message"), long);
  assert.equal(await page.locator(".turn").count(), 0);
  await page.fill("#message", "");
  await page.locator("#message").evaluate((element) => (element.value = "half \ud83d"));
  await page.keyboard.press("Enter");
  await page.locator("#problem:has-text('not valid Unicode')").waitFor();
  for (const [value, kind, words] of [
    [{ temperature: -1 }, "SamplingError", /temperature is -1 where a number from 0/],
    [{ max_new_tokens: 1 }, "SamplingError", /the option "max_new_tokens" is unknown/],
  ]) {
    const found = await page.evaluate(async ([messages, value]) => {
      return glm.model.chat(messages, value).next().catch((error) => ({ kind: error.name, message: error.message }));
    }, [messages, value]);
    assert.equal(found.kind, kind);
    assert.match(found.message, words);
  }
  await choose(page, { temperature: 0, "max-new-tokens": maxNewTokens });
  assert.equal(await ask(page, messages[0].content), greedy.text);
  assert.equal(await page.textContent("#problem"), "");
});

test("an answer is cancelled while it is decoded, and while a long prompt is read", async (t) => {
  // Two answers take turns, run by run: the tokens of the second one measure how soon the first one stops.
  const { page } = await visit(t, browser, { places: { "/": DIST, "/model/": EXACT_FOLDER } });
  const found = await page.evaluate(async (messages) => {
    const results = [];
    for (const content of [messages[0].content, "the ".repeat(3000)]) {
      const controller = new AbortController();
      let count = 0;
      let late = null; // tokens of the second answer between the cancellation and its effect
      const cancelled = (async () => {
        const options = { temperature: 0, ignoreEos: true, signal: controller.signal };
        for await (const _ of glm.model.chat([{ role: "user", content }], options));
      })().catch((error) => {
        late = count - 3;
        return error.name;
      });
      for await (const _ of glm.model.chat(messages, { temperature: 0, ignoreEos: true, maxNewTokens: 20 })) {
        if (++count === 3) controller.abort();
        if (late !== null) break;
      }
      results.push([await cancelled, late]);
    }
    const session = glm.model.newSession();
    for await (const _ of session.chat(messages, { temperature: 0 })) break;
    const again = session.chat(messages, { temperature: 0 });
    await session.release();
    glm.model.release();
    return [...results, await again.next().then(() => "answered", (error) => error.message)];
  }, messages);
  for (const [name, late] of found.slice(0, 2)) {
    assert.equal(name, "AbortError");
    assert.ok(late <= 8, `the other answer went on for ${late} tokens`);
  }
  assert.match(found[2], /the model was released; load the model again/);
});

exhaustive("out of memory in an answer: an error message, and the next answer succeeds", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER } });
  server.prefixes.set("/worker.js", `
    const { Memory } = WebAssembly;
    WebAssembly.Memory = function (limits) { return new Memory({ ...limits, maximum: ${PAGES} }); };
    WebAssembly.Memory.prototype = Memory.prototype;
  `);
  await forgetWorker(page);
  assert.ok((await open(page, "exact/")).label);
  server.prefixes.clear(); // the model is loaded again with all the memory there is
  await forgetWorker(page);
  await choose(page, { temperature: 0, "max-new-tokens": maxNewTokens });
  await page.fill("#message", "the ".repeat(3500));
  await page.keyboard.press("Enter");
  await page.locator("#problem:has-text('onnxruntime failed at token')").waitFor();
  await page.locator("#chat:not([hidden])").waitFor();
  assert.equal(await ask(page, messages[0].content), greedy.text);
});

exhaustive("the worker cannot be loaded", async (t) => {
  const { page, server } = await visit(t, browser, { places: { "/": DIST, "/exact/": EXACT_FOLDER }, expected: /SyntaxError|Uncaught/ });
  server.prefixes.set("/worker.js", "this is no JavaScript;");
  await forgetWorker(page);
  assert.match((await open(page, "exact/")).message, /the worker failed .*; load the model again/);
});
