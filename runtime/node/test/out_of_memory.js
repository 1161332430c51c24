/** Started by a test: limits this process's memory during a long prompt. */

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";

import { load } from "glm-runtime";

import { Decoder } from "../src/decoder.js";
import { FOLDER } from "./folders.js";

const model = await load(FOLDER);
const decoder = new Decoder(model.graph, model.manifest.model);
const tokens = Array.from({ length: 4000 }, (_, i) => i);
for (let start = 0; start < 4000; start += 100) await decoder.append(tokens.slice(start, start + 100));
decoder.truncate(3); // the KV cache is allocated now; the activations were small

setLimit(readSize() + 8 * 2 ** 20); // less than the activations of 4,000 tokens need
const error = await decoder.append(tokens).catch((reason) => reason);
setLimit("unlimited");
console.log(`${error.name}: ${error.message}`);
await decoder.append(tokens);
console.log(`still here: ${decoder.length} tokens`);

function setLimit(bytes) {
  const { status, stderr } = spawnSync("prlimit", ["--pid", String(process.pid), `--as=${bytes}:unlimited`]);
  if (status !== 0) throw new Error(`prlimit: ${stderr}`);
}

function readSize() {
  return Number(/VmSize:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))[1]) * 1024;
}
