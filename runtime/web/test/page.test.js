/** The chat page: asking, reading, stopping, settings and copying, with mouse, keyboard and screen reader. */

import assert from "node:assert/strict";

import { DIST, EXACT_FOLDER, ask, check, choose, exhaustive, finished, launch, readVectors, tabTo, test, visit } from "./browser.js";

const browser = await launch();
const places = { "/": DIST, "/model/": EXACT_FOLDER };
const { vectors, max_new_tokens: maxNewTokens } = await readVectors(EXACT_FOLDER);
const greedy = { temperature: 0, "max-new-tokens": maxNewTokens };
const [moses, poem, , endless] = vectors;
const wordsOf = (vector) => vector.messages[0].content;

test("an answer grows token by token, and has the vector's text", async (t) => {
  const { page } = await visit(t, browser, { places });
  await choose(page, greedy);
  await page.evaluate(() => {
    window.lengths = new Set();
    const watcher = new MutationObserver(() => window.lengths.add(document.querySelector(".turn:not(.asked) > .text")?.textContent.length));
    watcher.observe(document.getElementById("turns"), { childList: true, subtree: true, characterData: true });
  });
  assert.equal(await ask(page, wordsOf(moses)), moses.greedy.text);
  assert.ok((await page.evaluate(() => window.lengths.size)) > 10);
  const facts = await page.locator(".turn .facts span").textContent();
  assert.match(facts, new RegExp(`^${moses.greedy.token_ids.length} tokens, \\d+\\.\\d tokens/s, first token after \\d+\\.\\d\\d s$`));
  assert.match(await page.textContent("#facts"), /^model on WebAssembly, \d threads?\.$/);
  await ask(page, "And then?");
  assert.equal(await page.locator(".turn").count(), 4);
  await page.click("#new-chat");
  assert.equal(await page.locator(".turn").count(), 0);
  assert.equal(await ask(page, wordsOf(poem)), poem.greedy.text);
});

test("answers are spoken when they are finished, not token by token", async (t) => {
  const { page } = await visit(t, browser, { places });
  await choose(page, greedy);
  await page.evaluate(() => {
    window.spoken = [];
    const regions = document.querySelectorAll("[role=status], [role=alert], [aria-live]");
    for (const region of regions) {
      new MutationObserver(() => region.textContent && window.spoken.push(region.textContent)).observe(region, { childList: true });
    }
    window.isQuiet = !document.getElementById("turns").closest("[aria-live], [role=log], [role=status]");
  });
  await ask(page, wordsOf(poem));
  assert.deepEqual(await page.evaluate(() => window.spoken), [`Answer: ${poem.greedy.text}`]);
  assert.ok(await page.evaluate(() => window.isQuiet));
});

for (const how of ["button", "Escape"]) {
  const register = how === "Escape" ? test : exhaustive;
  register(`an answer is stopped in the middle (${how}), and the next one comes`, async (t) => {
    const { page } = await visit(t, browser, { places });
    await choose(page, greedy);
    assert.equal(endless.greedy.finish_reason, "length");
    await page.fill("#message", wordsOf(endless));
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector(".is-writing > .text")?.textContent.length > 3);
    if (how === "button") await page.click("#stop");
    else await page.keyboard.press("Escape");
    await finished(page);
    const shown = await page.locator(".turn:not(.asked) > .text").innerText();
    assert.ok(shown.length < endless.greedy.text.length && endless.greedy.text.startsWith(shown), shown);
    assert.match(await page.locator(".turn .facts span").textContent(), /stopped$/);
    await page.click("#new-chat");
    assert.equal(await ask(page, wordsOf(moses)), moses.greedy.text);
  });
}

exhaustive("a new chat in the middle of an answer ends it", async (t) => {
  const { page } = await visit(t, browser, { places });
  await choose(page, greedy);
  await page.fill("#message", wordsOf(endless));
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector(".is-writing > .text")?.textContent.length > 3);
  await page.click("#new-chat");
  await finished(page);
  assert.equal(await page.locator(".turn").count(), 0);
  assert.equal(await ask(page, wordsOf(moses)), moses.greedy.text);
});

test("by keyboard alone", async (t) => {
  const { page } = await visit(t, browser, { places });
  const focus = () => page.evaluate(() => document.activeElement.id);
  assert.equal(await focus(), "message");
  await tabTo(page, "show-settings", "Shift+Tab");
  await page.keyboard.press("Enter");
  await tabTo(page, "temperature");
  await page.keyboard.type("0");
  await tabTo(page, "max-new-tokens");
  await page.keyboard.type(String(maxNewTokens));
  await page.keyboard.press("Enter"); // closes the dialog
  assert.equal(await page.locator("dialog[open]").count(), 0);
  assert.equal(await focus(), "show-settings");
  await tabTo(page, "message");
  await page.keyboard.type(wordsOf(moses));
  await page.keyboard.press("Enter");
  await finished(page);
  assert.equal(await page.locator(".turn:not(.asked) > .text").innerText(), moses.greedy.text);
  await page.keyboard.type(wordsOf(endless));
  await tabTo(page, "send");
  await page.keyboard.press("Enter");
  assert.equal(await focus(), "stop");
  await page.keyboard.press("Enter");
  await finished(page);
  assert.equal(await focus(), "message");
  await tabTo(page, "show-models", "Shift+Tab");
  await page.keyboard.press("Space");
  await tabTo(page, "pick");
  await tabTo(page, "address");
  await page.keyboard.press("Escape");
  await page.locator("#kept button:has-text('Delete')").focus();
  await page.keyboard.press("Enter");
  await page.locator("#kept li").waitFor({ state: "detached" });
  assert.equal(await focus(), "models-title");
});

test("Enter sends, Shift and Enter do not, and neither does Enter of an input method", async (t) => {
  const { page } = await visit(t, browser, { places });
  await choose(page, greedy);
  await page.focus("#message");
  await page.keyboard.type("one");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two");
  assert.equal(await page.inputValue("#message"), "one\ntwo");
  await page.fill("#message", "");
  await page.evaluate(() => addEventListener("keydown", ({ key, isComposing }) => key === "Enter" && (window.wasComposing = isComposing), true));
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Input.imeSetComposition", { text: "jingyesi", selectionStart: 8, selectionEnd: 8 });
  // While an input method is open, browsers send a key event without text.
  await devtools.send("Input.dispatchKeyEvent", { type: "rawKeyDown", key: "Enter", code: "Enter", windowsVirtualKeyCode: 229 });
  assert.equal(await page.evaluate(() => window.wasComposing), true);
  assert.equal(await page.locator(".turn").count(), 0);
  await devtools.send("Input.insertText", { text: wordsOf(poem) });
  await page.keyboard.press("Enter");
  await finished(page);
  assert.equal(await page.locator(".asked .text").textContent(), wordsOf(poem));
  assert.equal(await page.locator(".turn:not(.asked) > .text").innerText(), poem.greedy.text);
});

exhaustive("reasoning is shown separately, and folded", async (t) => {
  const { page } = await visit(t, browser, { places });
  await choose(page, { ...greedy, "max-new-tokens": 12, thinking: "on" });
  await ask(page, wordsOf(moses));
  const thoughts = page.locator(".thinking");
  assert.equal(await thoughts.evaluate((element) => element.open), false);
  await thoughts.locator("summary").click();
  assert.ok((await thoughts.locator(".text").textContent()).length > 5);
});

test("markup is shown as text, and each paragraph has its own direction", async (t) => {
  const { page } = await visit(t, browser, { places });
  await choose(page, { ...greedy, "max-new-tokens": 3 });
  const markup = '<img src="x" onerror="window.isBroken = true">';
  await ask(page, markup);
  assert.equal(await page.locator(".asked .text").textContent(), markup);
  assert.equal(await page.evaluate(() => document.querySelectorAll("#turns img").length + Number("isBroken" in window)), 0);
  await ask(page, "שלום");
  assert.equal(await page.locator(".asked .text").last().evaluate((element) => getComputedStyle(element).direction), "rtl");
});

test("an answer is copied; a system prompt is read", async (t) => {
  const { page } = await visit(t, browser, { places, context: { permissions: ["clipboard-read", "clipboard-write"] } });
  await choose(page, greedy);
  await ask(page, wordsOf(moses));
  await page.click("text=Copy");
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), moses.greedy.text);
  await page.click("#new-chat");
  await choose(page, { system: "Answer with a poem." });
  const shown = await ask(page, wordsOf(moses));
  const expected = await page.evaluate(
    async ([messages, maxNewTokens]) => {
      let text = "";
      for await (const piece of glm.model.chat(messages, { temperature: 0, maxNewTokens })) text += piece.text;
      return text;
    },
    [[{ role: "system", content: "Answer with a poem." }, ...moses.messages], maxNewTokens],
  );
  assert.equal(shown, expected);
  assert.notEqual(shown, moses.greedy.text);
});

for (const colorScheme of ["light", "dark"]) {
  const register = colorScheme === "light" ? test : exhaustive;
  register(`axe finds nothing, ${colorScheme}, wide and narrow`, async (t) => {
    const { page } = await visit(t, browser, { places, context: { colorScheme, reducedMotion: "reduce" } });
    await choose(page, greedy);
    await ask(page, wordsOf(moses));
    await check(page, "an answer");
    await page.click("#show-models");
    await page.locator("#kept li").waitFor();
    await check(page, "models");
    await page.evaluate(() => (document.getElementById("problem").textContent = "something is wrong"));
    await page.click("#show-settings");
    await check(page, "settings");
    await page.keyboard.press("Escape");
    await page.setViewportSize({ width: 320, height: 600 });
    await check(page, "narrow");
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= 320), "it scrolls sideways");
  });
}
