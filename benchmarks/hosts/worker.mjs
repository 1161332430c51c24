/**
 * One model in Node, or in Chromium on WebAssembly; does what `serve` of processes.py does.
 *
 *     node worker.mjs node|browser FOLDER THREADS
 *
 * Node needs `npm ci` in runtime/node. The browser needs `npm ci` and `npm run build` in runtime/web;
 * its page fetches the folder from a server on this machine, as on a first visit.
 */

import { createInterface } from "node:readline";

const [host, folder, threads] = process.argv.slice(2);

/**
 * Answer once. Stands alone, so that it can be handed to a page.
 * @param {{ generate: Function }} model  of runtime/node or runtime/web
 * @param {number[]} prompt
 * @param {number} count
 * @param {object} [options]  more of `generate`
 * @returns {Promise<{ first_token_seconds: number, decode_seconds: number, tokens: number[] }>}
 */
async function measure(model, prompt, count, options = {}) {
  const tokens = [];
  const started = performance.now();
  let first = started;
  for await (const piece of model.generate(prompt, { temperature: 0, maxNewTokens: count, ...options })) {
    if (!tokens.length) first = performance.now();
    tokens.push(piece.tokenId);
  }
  const ended = performance.now();
  return { first_token_seconds: (first - started) / 1000, decode_seconds: (ended - first) / 1000, tokens };
}

/** @returns a function that answers a prompt, and one that ends the host */
async function openNode() {
  const { load } = await import("../../runtime/node/src/index.js");
  const model = await load(folder, { threads: Number(threads) });
  return [(prompt, count) => measure(model, prompt, count), () => {}];
}

async function openBrowser() {
  const { chromium } = await import("../../runtime/web/node_modules/playwright-core/index.mjs");
  const { StaticServer } = await import("../../runtime/web/test/static_server.js");
  const page = new URL("../../runtime/web/dist/", import.meta.url).pathname;
  const server = await new StaticServer({ "/": page, "/model/": folder }).start();
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const tab = await browser.newPage();
  await tab.goto(`${server.address}?backend=wasm&threads=${threads}`);
  await tab.waitForFunction(() => window.glm?.ready.then(() => true), null, { timeout: 300_000 });
  const call = `(${measure})(glm.model, ...arguments[0], { ignoreEos: true })`;
  const answer = (prompt, count) => tab.evaluate(new Function(`return ${call}`), [prompt, count]);
  return [answer, () => browser.close().then(() => server.stop())];
}

/** @param {object} message */
function say(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

const started = performance.now();
const [answer, close] = await (host === "node" ? openNode() : openBrowser());
say({ load_seconds: (performance.now() - started) / 1000 });
for await (const line of createInterface({ input: process.stdin })) {
  const { prompt, num_tokens: count } = JSON.parse(line);
  say(await answer(prompt, count));
}
await close();
