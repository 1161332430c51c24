/** What all tests of pages share: Chromium, and what a user does. */

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import assert from "node:assert/strict";
import { after, test as register } from "node:test";

import { chromium } from "playwright-core";

const IS_EXHAUSTIVE = process.env.GLM_EXHAUSTIVE === "1";
export const PATIENCE_MS = 300_000; // a busy machine may be slow; a wait ends earlier as soon as its condition holds

/** A test of the default suite. @type {typeof register} */
export const test = IS_EXHAUSTIVE ? skipQuietly : register;
/** A variant that runs only with GLM_EXHAUSTIVE=1, and then without the default suite. @type {typeof register} */
export const exhaustive = IS_EXHAUSTIVE ? register : skipQuietly;

function skipQuietly() {}

const CHROMIUM = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome"].find((path) => path && existsSync(path));

/** @type {import("playwright-core").Browser[]} */
const browsers = [];
after(() => Promise.all(browsers.map((one) => one.close())));

/** @param {string[]} [flags] */
export async function launch(flags = []) {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", ...flags] });
  browsers.push(browser);
  return browser;
}

/**
 * Collect the errors of a page. HTTP errors are not among them: the page handles them.
 * @param {import("playwright-core").Page} page
 * @param {RegExp} [expected]
 */
export function watch(page, expected) {
  /** @type {string[]} */
  const errors = [];
  const note = (/** @type {string} */ text) => expected?.test(text) || errors.push(text);
  page.on("pageerror", (error) => note(String(error)));
  page.on("console", (message) => {
    const isAnswer = /Failed to load resource: the server responded with a status of (403|404|503)/.test(message.text());
    if (message.type() === "error" && !isAnswer) note(message.text());
  });
  return errors;
}

/** Fill the fields of the settings dialog. */
export async function choose(page, fields) {
  await page.click("#show-settings");
  for (const [id, value] of Object.entries(fields)) {
    if (id === "thinking") await page.selectOption(`#${id}`, String(value));
    else await page.fill(`#${id}`, String(value));
  }
  await page.click("#settings .main");
}

/** Ask in the page, wait until the answer is finished, and return its text. */
export async function ask(page, text) {
  await page.fill("#message", text);
  await page.keyboard.press("Enter");
  await finished(page);
  return page.locator(".turn:not(.asked) > .text").last().innerText(); // with the line breaks that a user sees
}

export async function finished(page) {
  await page.locator("#send:not([hidden])").waitFor();
  await page.waitForFunction(() => !document.querySelector(".is-writing"));
}

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Check the rules of WCAG 2.2 A and AA, and axe's best practices. */
export async function check(page, what) {
  await page.evaluate(axe); // evaluated by the browser's debugger, because the page's policy allows no other script
  const { violations } = await page.evaluate(() => axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]), [], what);
}

/** Press Tab until an element has the focus, which must be seen. */
export async function tabTo(page, id, key = "Tab") {
  const focus = () => page.evaluate(() => document.activeElement.id || document.activeElement.className);
  for (let presses = 0; (await focus()) !== id; presses++) {
    assert.ok(presses < 20, `no way to ${id}`);
    await page.keyboard.press(key);
  }
  const outline = () => page.evaluate(() => {
    const { activeElement: element } = document;
    return [element, element.parentElement].some((one) => getComputedStyle(one).outlineStyle === "solid");
  });
  assert.ok(await outline(), `focus on ${id} is not seen`);
}
