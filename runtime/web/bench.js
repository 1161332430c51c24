/**
 * Measures prefill and decode in Chromium: `node bench.js FOLDER [prompt tokens] [new tokens] [rounds] [threads]`.
 *
 * Run `npm run build` before. Prints the medians of all rounds, and one JSON object on the last line.
 */

import { join } from "node:path";

import { chromium } from "playwright-core";

import { StaticServer } from "./test/static_server.js";

const [folder, ...numbers] = process.argv.slice(2);
if (!folder) {
  throw new Error("a folder is missing; write: node bench.js FOLDER [prompt tokens] [new tokens] [rounds] [threads]");
}
const [promptTokens = 128, newTokens = 64, rounds = 5, threads = 1] = numbers.map(Number);

const server = await new StaticServer({ "/": join(import.meta.dirname, "dist"), "/model/": folder }).start();
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const page = await browser.newPage();
await page.goto(`${server.address}?threads=${threads}`);
await page.waitForFunction(() => /** @type {any} */ (window).glm?.ready.then(() => true), null, { timeout: 0 });

/** @returns {Promise<{ prefill: number, decode: number }>}  both rates in tokens per second */
function measure() {
  return page.evaluate(async ([past, count]) => {
    const { model } = /** @type {any} */ (window).glm;
    const prompt = Array.from({ length: past }, (_, i) => (i * 7919 + 13) % model.shape.tokenizerVocabSize);
    const start = performance.now();
    const times = [];
    for await (const _ of model.generate(prompt, { temperature: 0, ignoreEos: true, maxNewTokens: count + 1 })) {
      times.push(performance.now());
    }
    return { prefill: (past * 1000) / (times[0] - start), decode: (count * 1000) / (times[count] - times[0]) };
  }, [promptTokens, newTokens]);
}

await measure(); // warm-up
const found = [];
for (let round = 0; round < rounds; round++) found.push(await measure());
/** @param {number[]} values */
const median = (values) => values.sort((left, right) => left - right)[values.length >> 1];
const report = {
  folder,
  browser: browser.version(),
  backend: await page.evaluate(() => /** @type {any} */ (window).glm.model.backend),
  threads,
  prompt_tokens: promptTokens,
  new_tokens: newTokens,
  rounds,
  decode_tokens_per_second: median(found.map((one) => one.decode)),
  prefill_tokens_per_second: median(found.map((one) => one.prefill)),
};
console.log(`decode ${report.decode_tokens_per_second.toFixed(1)} tokens/s, prefill ${report.prefill_tokens_per_second.toFixed(1)} tokens/s`);
console.log(JSON.stringify(report));
await browser.close();
await server.stop();
