/** The server command and the example of README.md. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { DIST, FOLDER, PATIENCE_MS, ask, launch, ready, test, watch } from "./browser.js";
import { StaticServer } from "./static_server.js";

const readme = await readFile(new URL("../README.md", import.meta.url), "utf8");
const blocks = [...readme.matchAll(/```js\n(.*?)```/gs)].map((match) => match[1]);

test("the server command of README.md", async (t) => {
  const [, command] = /^(python3 -m http\.server.*)$/m.exec(readme);
  const [program, ...rest] = command.split(" ");
  const server = spawn(program, ["-u", ...rest, "--bind", "127.0.0.1", "0"], { cwd: new URL("../../..", import.meta.url), stdio: ["ignore", "pipe", "ignore"] });
  t.after(() => server.kill());
  const [first] = await once(server.stdout, "data");
  const page = await (await launch()).newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const errors = watch(page);
  await page.goto(`http://localhost:${/port (\d+)/.exec(String(first))[1]}/`);
  await ready(page);
  assert.ok(await page.evaluate(() => crossOriginIsolated));
  await page.setInputFiles("#pick", FOLDER);
  await page.locator("#chat:not([hidden])").waitFor();
  assert.match(await ask(page, "Recite Genesis 1:1."), /\w/);
  assert.deepEqual(errors, []);
});

test("the example of README.md, in another page", async (t) => {
  assert.equal(blocks.length, 1);
  const site = await mkdtemp(join(tmpdir(), "glm-site-"));
  await mkdir(join(site, "deep"));
  await writeFile(join(site, "deep", "index.html"), '<!doctype html><title>Mine</title><script type="module" src="mine.js"></script>');
  await writeFile(join(site, "deep", "mine.js"), blocks[0]);
  const server = await new StaticServer({ "/": site, "/deep/glm/": DIST, "/deep/model/": FOLDER }).start();
  t.after(() => Promise.all([server.stop(), rm(site, { recursive: true })]));
  const page = await (await launch()).newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const errors = watch(page, /favicon/);
  await page.goto(`${server.address}deep/index.html`);
  await page.locator("p:has-text('only begotten Son')").waitFor();
  assert.deepEqual(errors, []);
});
