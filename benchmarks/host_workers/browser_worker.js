/**
 * One model in Chromium, on WebAssembly; needs `npm ci` and `npm run build` in runtime/web.
 *
 *     node browser_worker.js FOLDER THREADS
 *
 * The page fetches the folder from a server on this machine, as on a first visit.
 */

import { chromium } from "../../runtime/web/node_modules/playwright-core/index.mjs";
import { StaticServer } from "../../runtime/web/test/static_server.js";
import { measure, serve } from "./answering.js";

const [folder, threads] = process.argv.slice(2);
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const page = new URL("../../runtime/web/dist/", import.meta.url).pathname;

const server = await new StaticServer({ "/": page, "/model/": folder }).start();
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
await serve(async () => {
  const tab = await browser.newPage();
  await tab.goto(`${server.address}?backend=wasm&threads=${threads}`);
  await tab.waitForFunction(() => window.glm?.ready.then(() => true), null, { timeout: 300_000 });
  const call = `(${measure})(glm.model, ...arguments[0], { ignoreEos: true })`;
  return (prompt, count) => tab.evaluate(new Function(`return ${call}`), [prompt, count]);
});
await browser.close();
await server.stop();
