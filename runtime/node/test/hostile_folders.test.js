/** Folders whose small files are made to exhaust a runtime: one sentence, at once. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { FolderError, SamplingError, load } from "glm-runtime";

import { FOLDER, changeJson, collect, copyFolder, replaceFile } from "./folders.js";

const MANIFEST = "glm_manifest.json";

async function refuses(folder, words) {
  await assert.rejects(load(folder), (error) => {
    assert.ok(error instanceof FolderError, error.stack);
    assert.match(error.message, words);
    return true;
  });
}

test("numbers that are too large", async (t) => {
  const folder = await copyFolder(t);
  await changeJson(folder, MANIFEST, (manifest) => (manifest.model.num_layers = 2 ** 31 - 1));
  await refuses(folder, /inputs and outputs where the manifest requires 2147483647 layers/);
  await changeJson(folder, MANIFEST, (manifest) => (manifest.model.num_layers = 2 ** 31));
  await refuses(folder, /model\.num_layers is 2147483648 where less than 2\^31 is expected/);
});

test("JSON that is nested deeply", async (t) => {
  for (const name of [MANIFEST, "generation_config.json", "tokenizer_config.json", "tokenizer.json"]) {
    const folder = await copyFolder(t);
    await replaceFile(folder, name, "[".repeat(100_000) + "]".repeat(100_000));
    await refuses(folder, new RegExp(`${name} is not`));
  }
});

test("a pipe in place of a file", { skip: process.platform === "win32" }, async (t) => {
  const folder = await copyFolder(t);
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    await rename(path, `${folder}-kept`);
    execFileSync("mkfifo", [path]);
    await refuses(folder, new RegExp(name));
    await rm(path);
    await rename(`${folder}-kept`, path);
  }
});

test("more stop strings than are searched after every token", async () => {
  const model = await load(FOLDER);
  const stop = Array.from({ length: 1001 }, (_, index) => `s${index}`);
  const ask = async () => collect(model.generate("a", { maxNewTokens: 2, stop }));
  await assert.rejects(ask, (error) => error instanceof SamplingError && /at most 1000 strings/.test(error.message));
  await collect(model.generate("a", { maxNewTokens: 2, stop: stop.slice(1) }));
});
