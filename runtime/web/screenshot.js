/**
 * Takes the README's picture of the page, light and dark side by side: `npm run screenshot FOLDER PICTURE`.
 *
 * FOLDER is the exported sample model. Chinese text needs a font, such as Debian's package fonts-noto-cjk.
 */

import { join } from "node:path";

import { chromium } from "playwright-core";

import { StaticServer } from "./test/static_server.js";

const [folder, picture] = process.argv.slice(2);
if (!picture) throw new Error("an argument is missing; write: npm run screenshot FOLDER PICTURE");
const SIZE = { width: 600, height: 640 };
const QUESTIONS = ["Recite John 3:16.", "背诵李白的《静夜思》。"];

const SCALE = 1.25; // device pixels per CSS pixel

const server = await new StaticServer({ "/": join(import.meta.dirname, "dist"), "/glm4-sample-int4/": folder }).start();
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

/** @param {"light" | "dark"} colorScheme */
async function take(colorScheme) {
  const page = await (await browser.newContext({ colorScheme, viewport: SIZE, deviceScaleFactor: SCALE })).newPage();
  await page.goto(`${server.address}?model=glm4-sample-int4`);
  await page.waitForFunction(() => /** @type {any} */ (window).glm?.ready.then(() => true), null, { timeout: 0 });
  await page.click("#show-settings");
  await page.fill("#temperature", "0");
  await page.click("#settings .main");
  for (const question of QUESTIONS) {
    await page.fill("#message", question);
    await page.keyboard.press("Enter");
    const count = QUESTIONS.indexOf(question) + 1;
    await page.waitForFunction((count) => document.querySelectorAll(".turn .facts span").length === count, count, { timeout: 0 });
  }
  await page.fill("#message", "Who was Moses?");
  return (await page.screenshot()).toString("base64");
}

const pictures = [await take("light"), await take("dark")];
const both = await browser.newPage({ viewport: { width: 2 * SIZE.width, height: SIZE.height }, deviceScaleFactor: SCALE });
await both.setContent(
  `<body style="margin:0;display:flex">${pictures.map((one) => `<img style="width:50%" src="data:image/png;base64,${one}">`).join("")}</body>`,
);
await both.screenshot({ path: picture });
await browser.close();
await server.stop();
