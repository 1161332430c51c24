/**
 * Makes `screenshot.png`, light and dark side by side: `npm run screenshot FOLDER`.
 *
 * FOLDER is the sample's, exported. Chinese needs a font of the system, such as Debian's fonts-noto-cjk.
 */

import { join } from "node:path";

import { chromium } from "playwright-core";

import { StaticServer } from "./test/static_server.js";

const [folder] = process.argv.slice(2);
if (!folder) throw new Error("no folder is given; write: npm run screenshot FOLDER");
const SIZE = { width: 600, height: 660 };
const QUESTIONS = ["Recite Genesis 1:1.", "背诵李白的《静夜思》。"];

const server = await new StaticServer({ "/": join(import.meta.dirname, "dist"), "/glm4-sample-int4/": folder }).start();
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

/** @param {"light" | "dark"} colorScheme */
async function take(colorScheme) {
  const page = await (await browser.newContext({ colorScheme, viewport: SIZE })).newPage();
  await page.goto(`${server.address}?model=glm4-sample-int4`);
  await page.waitForFunction(() => /** @type {any} */ (window).glm?.ready.then(() => true));
  await page.click("#show-settings");
  await page.fill("#temperature", "0");
  await page.click("#settings .main");
  for (const question of QUESTIONS) {
    await page.fill("#message", question);
    await page.keyboard.press("Enter");
    await page.waitForFunction((asked) => document.querySelectorAll(".turn .facts span").length === asked, QUESTIONS.indexOf(question) + 1);
  }
  await page.fill("#message", "Who was Moses?");
  return (await page.screenshot()).toString("base64");
}

const pictures = [await take("light"), await take("dark")];
const both = await browser.newPage({ viewport: { width: 2 * SIZE.width, height: SIZE.height } });
await both.setContent(
  `<body style="margin:0;display:flex">${pictures.map((one) => `<img src="data:image/png;base64,${one}">`).join("")}</body>`,
);
await both.screenshot({ path: join(import.meta.dirname, "screenshot.png") });
await browser.close();
await server.stop();
