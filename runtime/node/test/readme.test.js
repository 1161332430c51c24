/** Every block of README.md runs on the sample folder. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { FOLDER } from "./folders.js";

const root = new URL("..", import.meta.url);
const readme = await readFile(new URL("README.md", root), "utf8");
const blocks = [...readme.matchAll(/```js\n(.*?)```/gs)].map((match) => match[1]);

/** What each block prints. */
const expected = [/only begotten Son/, /In the beginning God .*床前明月光/s, /床前明月光/];

test("README.md has these blocks", () => assert.equal(blocks.length, expected.length));

for (const [place, block] of blocks.entries()) {
  test(`block ${place + 1} of README.md`, () => {
    const code = block.replaceAll("artifacts/glm4-sample-int4", FOLDER);
    const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", code], {
      cwd: root,
      encoding: "utf8",
    });
    assert.match(stdout, expected[place], stderr);
  });
}
