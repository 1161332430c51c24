/**
 * Takes the pictures of the page on a server: `npm run screenshot:server ADDRESS LIGHT DARK`.
 *
 * ADDRESS is that of `glm-run serve` with the sample model. Chinese text needs a font, such as Debian's package
 * fonts-noto-cjk.
 */

import { chromium } from "playwright-core";

const [address, ...pictures] = process.argv.slice(2);
if (pictures.length !== 2) throw new Error("an argument is missing; write: npm run screenshot:server ADDRESS LIGHT DARK");
const SIZE = { width: 1040, height: 720 }; // wide enough for the list of chats
const TOOL = {
  name: "get_verse",
  description: "Look up a Bible verse.",
  parameters: { type: "object", properties: { reference: { type: "string" } }, required: ["reference"] },
};
const CHATS = {
  light: [["Recite Psalm 23:1."], ["Recite Genesis 1:1."], ["Recite John 3:16.", "背诵李白的《静夜思》。"]],
  dark: [["Recite Psalm 23:1."], ["背诵李白的《静夜思》。"], ["Look up Micah 6:8."]],
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

/**
 * @param {"light" | "dark"} colorScheme
 * @param {string} path
 */
async function take(colorScheme, path) {
  const page = await (await browser.newContext({ colorScheme, viewport: SIZE })).newPage();
  await page.goto(address);
  await page.locator("#chat:not([hidden])").waitFor();
  for (const questions of CHATS[colorScheme]) {
    await page.click("#new-chat");
    for (const question of questions) await ask(page, question);
  }
  await page.screenshot({ path });
}

/**
 * @param {import("playwright-core").Page} page
 * @param {string} question
 */
async function ask(page, question) {
  await page.click("#show-settings");
  await page.fill("#temperature", "0");
  await page.locator("#settings details").evaluateAll((all) => all.forEach((one) => one.setAttribute("open", "")));
  await page.fill("#tools", question.startsWith("Look up") ? JSON.stringify([{ type: "function", function: TOOL }]) : "");
  await page.click("#settings .main");
  await page.fill("#message", question);
  await page.keyboard.press("Enter");
  await page.locator("#send:not([hidden])").waitFor();
  await page.waitForFunction(() => !document.querySelector(".is-writing"));
}

await take("light", pictures[0]);
await take("dark", pictures[1]);
await browser.close();
