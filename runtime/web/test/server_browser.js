/** What the tests of the page on a server share. `tests/server/test_page.py` starts the servers. */

import assert from "node:assert/strict";

import { PATIENCE_MS, watch } from "./chromium.js";

/** A server without a key, with the models `sample` and `poems`. */
export const SERVER = process.env.GLM_SERVER ?? "";
/** A server with the key `right`. */
export const KEY_SERVER = process.env.GLM_KEY_SERVER ?? "";
export const VERSE = "Recite John 3:16.";
export const LONG = "Tell me a long story.";
export const POEM = "背诵李白的《静夜思》。";

if (!SERVER || !KEY_SERVER) throw new Error("GLM_SERVER and GLM_KEY_SERVER are not both set; run pytest tests/server/test_page.py.");

/**
 * Open the page with empty storage. An error in the browser's console, or a request to anything else, fails the test.
 * @param {import("node:test").TestContext} test
 * @param {import("playwright-core").Browser} browser
 * @param {{ address?: string, context?: object, expected?: RegExp, isOpen?: boolean }} [options]
 */
export async function visitServer(test, browser, { address = SERVER, context = {}, expected, isOpen = true } = {}) {
  const visitor = await browser.newContext(context);
  visitor.setDefaultTimeout(PATIENCE_MS);
  const page = await visitor.newPage();
  const errors = watch(page, expected);
  /** @type {import("playwright-core").Request[]} */
  const requests = [];
  page.on("request", (request) => requests.push(request));
  test.after(async () => {
    await visitor.close();
    assert.deepEqual(errors, []);
    assert.deepEqual(requests.map((one) => one.url()).filter((url) => !url.startsWith(address) && !url.startsWith("blob:")), []);
  });
  await page.goto(address);
  if (isOpen) await opened(page);
  return { page, visitor, requests };
}

export function opened(page) {
  return page.locator("#chat:not([hidden])").waitFor();
}

/** The bodies of the questions that a page sent. */
export function readBodies(requests) {
  return requests.filter((one) => one.url().endsWith("/v1/chat/completions")).map((one) => one.postDataJSON());
}

/** Put a conversation into the browser's storage, as the page keeps it, and load the page with it. */
export async function keep(page, turns, title = "Kept") {
  await page.evaluate(
    async ([turns, title]) => {
      const request = indexedDB.open("glm-chats /", 1);
      const database = await new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
      const change = database.transaction("conversations", "readwrite");
      change.objectStore("conversations").put({ id: "kept", title, changedMs: 1, turns });
      await new Promise((resolve) => (change.oncomplete = resolve));
      database.close();
      sessionStorage.setItem("glm-chat", "kept");
    },
    [turns, title],
  );
  await page.reload();
  await opened(page);
}

/**
 * Let the server's next answers have a form.
 * @param {import("playwright-core").Page} page
 * @param {object} schema  JSON schema
 */
export async function force(page, schema) {
  await page.unroute("**/v1/chat/completions");
  await page.route("**/v1/chat/completions", (route) => {
    const form = { response_format: { type: "json_schema", json_schema: { schema } } };
    route.continue({ postData: JSON.stringify({ ...route.request().postDataJSON(), ...form }) });
  });
}

/** Ask something whose answer is long, and wait for its beginning. */
export async function begin(page) {
  await force(page, { type: "string", minLength: 3000 });
  await page.fill("#message", LONG);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector(".is-writing > .text")?.textContent.length > 3);
  await page.unroute("**/v1/chat/completions");
}

export const answers = (page) => page.locator(".turn:not(.asked):not(.result) > .text").allInnerTexts();
export const questions = (page) => page.locator(".asked .text").allInnerTexts();
