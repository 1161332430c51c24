/** The page on a server: hostile answers, API keys, the keyboard, screen readers and narrow windows. */

import assert from "node:assert/strict";

import { ask, check, choose, finished, launch, tabTo, test } from "./chromium.js";
import { KEY_SERVER, VERSE, answers, begin, force, keep, opened, visitServer } from "./server_browser.js";

const browser = await launch();
const HOSTILE = [
  "<script>window.isBroken = 1</script>",
  '<img src="x" onerror="window.isBroken = 2"> and <svg onload="window.isBroken = 3"><script>window.isBroken = 4</script></svg>',
  "[a link](javascript:window.isBroken=5) and [another](data:text/html,<script>window.isBroken=6</script>) and <javascript:alert(1)>",
  "![a picture](https://example.org/seen.png) and ![another](x\" onerror=\"window.isBroken=7)",
  '<iframe srcdoc="<script>parent.isBroken = 8</script>"></iframe><form action="https://example.org"><input name=q></form>',
  '<style>body { display: none }</style><a href="https://example.org" onclick="window.isBroken = 9">html</a>',
  "```js\" onmouseover=\"window.isBroken=10\nlet a = '</code></pre><img src=x onerror=window.isBroken=11>';\n```",
  "<math><mtext><table><mglyph><style><img src=x onerror=window.isBroken=12>",
  "[vb](vbscript:x) [file](file:///etc/passwd) [relative](v1/models) [good](https://example.org/page) <a@example.org>",
];
const RICH = [
  "# A title\n\nSome **bold** and *italic* text with `code`, and a [link](https://example.org/).\n\n- one\n- two\n  - three\n\n7. first\n8. second",
  "| name | value |\n|---|---:|\n| a long name for a column | 1 |\n\n> quoted\n\n---\n\n```python\ndef add(first, second):\n    return first + second  # a line that is much too long for a narrow window\n```",
  "#### Deep\n\n- [x] done\n- [ ] open\n\n***\n\nhttps://example.org/" + "long".repeat(40),
];
const asked = (content) => ({ role: "user", content });
const answered = (content) => ({ role: "assistant", content, facts: "3 tokens" });
const CALL = {
  role: "assistant",
  content: "",
  reasoning_content: "I need a tool.",
  tool_calls: [{ id: "call_0", type: "function", function: { name: "get_verse", arguments: '{"reference": "Micah 6:8"}' } }],
};

/** What the answers brought into the document that could act. */
function findDanger(page) {
  return page.evaluate(() => {
    const bad = [...document.querySelectorAll("#turns :is(script, img, svg, iframe, form:not(.edit), style, math, input, object, embed, link, meta)")];
    const handlers = [...document.querySelectorAll("#turns *")].filter((one) => [...one.attributes].some(({ name }) => name.startsWith("on")));
    const links = [...document.querySelectorAll("#turns a")].filter((one) => one.hasAttribute("href") && !/^(https?|mailto):/.test(one.href));
    return { broken: window.isBroken ?? null, elements: [...bad, ...handlers, ...links].map((one) => one.outerHTML) };
  });
}

test("nothing in a kept answer acts: no script, no picture, no link but to pages", async (t) => {
  const { page } = await visitServer(t, browser);
  await keep(page, HOSTILE.flatMap((text) => [asked(text), answered(text), { role: "tool", content: text, tool_call_id: "x" }]), HOSTILE[1]);
  for (const link of await page.locator("#turns a:not([href])").all()) await link.click();
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 100)));
  assert.deepEqual(await findDanger(page), { broken: null, elements: [] });
  assert.match((await answers(page))[0], /<script>window\.isBroken = 1<\/script>/, "HTML is shown as text");
  const links = await page.locator("#turns a[href]").evaluateAll((all) => all.map(({ href, target, rel }) => [href, target, rel]));
  const safe = ["_blank", "noopener noreferrer"];
  assert.deepEqual(links, [
    ["https://example.org/seen.png", ...safe],
    ["https://example.org/page", ...safe],
    ["mailto:a@example.org", ...safe],
  ]);
});

test("nothing in an answer that streams acts", async (t) => {
  const { page } = await visitServer(t, browser);
  await choose(page, { temperature: 0 });
  for (const text of HOSTILE.slice(0, 3)) {
    // A grammar makes the model say it.
    const words = text.replaceAll('"', "'");
    await force(page, { type: "string", const: words });
    await ask(page, VERSE);
    assert.deepEqual(await findDanger(page), { broken: null, elements: [] });
    await page.reload();
    await opened(page);
    const { turns } = await page.evaluate(async () => {
      const request = indexedDB.open("glm-chats /");
      await new Promise((resolve) => (request.onsuccess = resolve));
      const all = request.result.transaction("conversations").objectStore("conversations").getAll();
      await new Promise((resolve) => (all.onsuccess = resolve));
      return all.result[0];
    });
    assert.equal(JSON.parse(turns.at(-1).content), words, "the model did not say it");
  }
});

test("the policy forbids what the page itself would do wrong", async (t) => {
  const { page } = await visitServer(t, browser, { expected: /Content Security Policy|requires .Trusted(HTML|Script). assignment/ });
  const found = await page.evaluate(async () => {
    const attempts = {
      html: () => (document.getElementById("turns").innerHTML = "<img src=x onerror='window.isBroken = 1'>"),
      request: () => fetch("https://example.org/"),
      // Later, because the browser's debugger, which evaluates this function, may evaluate all code.
      code: () => new Promise((resolve, reject) => setTimeout(() => {
        try {
          resolve((0, eval)("window.isBroken = 2"));
        } catch (error) {
          reject(error);
        }
      })),
    };
    const results = {};
    for (const [name, attempt] of Object.entries(attempts)) {
      results[name] = await Promise.resolve().then(attempt).then(() => "done", () => "refused");
    }
    const script = document.createElement("script");
    try {
      script.textContent = "window.isBroken = 3";
      document.body.append(script);
    } catch {
      results.script = "refused";
    }
    return { ...results, broken: window.isBroken ?? null };
  });
  assert.deepEqual({ script: "refused", ...found }, { html: "refused", request: "refused", code: "refused", script: "refused", broken: null });
});

test("Markdown is shown: titles, lists, tables, code that is copied, and bad nesting", async (t) => {
  const { page } = await visitServer(t, browser, { context: { permissions: ["clipboard-read", "clipboard-write"] } });
  await keep(page, [...RICH, ">".repeat(20_000), "床前明月光，\n疑是地上霜。"].map(answered));
  const [first, second, third, nested, poem] = await page.locator(".turn > .text").all();
  assert.equal(await first.locator("h3").innerText(), "A title");
  assert.equal(await first.locator("h3").getAttribute("data-depth"), "1");
  assert.equal(await first.locator("li").count(), 5);
  assert.equal(await first.locator("ol").last().getAttribute("start"), "7");
  assert.equal(await second.locator("td").last().getAttribute("align"), "right");
  assert.equal(await second.locator(".code-head span").innerText(), "python");
  assert.equal(await second.locator("td").count(), 2);
  assert.match(await third.innerText(), /☑ done\n+☐ open/);
  assert.match(await nested.innerText(), /^>+$/);
  assert.equal(await poem.innerText(), "床前明月光，\n疑是地上霜。");
  await second.locator(".code button").click();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^def add\(first, second\):\n    return first \+ second.*\n$/);
});

test("a wrong key, then the right one, which a reload keeps and the next tab does not", async (t) => {
  const { page, visitor } = await visitServer(t, browser, { address: KEY_SERVER, expected: /status of 401/, isOpen: false });
  await page.locator("#key[open]").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "api-key");
  await check(page, "key");
  await page.click("#key-cancel");
  await page.locator("#problem:has-text('API key')").waitFor();
  await page.click("#retry");
  await page.fill("#api-key", "wrong");
  await page.keyboard.press("Enter");
  await page.locator("#key-problem:has-text('refused')").waitFor();
  await page.fill("#api-key", "right");
  await page.keyboard.press("Enter");
  await opened(page);
  await choose(page, { temperature: 0 });
  assert.match(await ask(page, VERSE), /begotten Son/);
  await page.reload();
  await opened(page);
  assert.ok(!(await page.evaluate(() => JSON.stringify(localStorage))).includes("right"));
  await page.click("#show-settings");
  await page.click("#change-key");
  await page.fill("#api-key", "wrong");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Escape");
  await page.fill("#message", VERSE);
  await page.keyboard.press("Enter");
  await page.locator("#key[open]").waitFor();
  await page.click("#key-cancel");
  await page.locator("#problem:has-text('API key')").waitFor();
  assert.equal(await page.inputValue("#message"), VERSE);
  const other = await visitor.newPage();
  await other.goto(KEY_SERVER);
  await other.locator("#key[open]").waitFor();
});

test("by keyboard alone", async (t) => {
  const { page } = await visitServer(t, browser);
  const tab = (id, key) => tabTo(page, id, key);
  assert.equal(await page.evaluate(() => document.activeElement.id), "message");
  await tab("show-settings", "Shift+Tab");
  await page.keyboard.press("Enter");
  await tab("temperature");
  await page.keyboard.type("0");
  await page.keyboard.press("Enter"); // closes the dialog
  await tab("message");
  await page.keyboard.type(VERSE);
  await page.keyboard.press("Enter");
  await finished(page);
  await tab("action", "Shift+Tab"); // Edit
  await page.keyboard.press("Enter");
  await page.keyboard.press("Control+Enter");
  await finished(page);
  assert.equal(await page.evaluate(() => document.activeElement.id), "message");
  await tab("action only-last", "Shift+Tab"); // Regenerate
  await page.keyboard.press("Enter");
  await finished(page);
  assert.equal(await page.evaluate(() => document.activeElement.id), "message");
  await tab("model", "Shift+Tab");
  await page.keyboard.press("ArrowDown");
  assert.equal(await page.inputValue("#model"), "poems");
  await tab("chat-title");
  await page.keyboard.press("Tab"); // Rename
  await page.keyboard.press("Enter");
  await page.keyboard.type("Mine");
  await page.keyboard.press("Enter");
  await page.locator("#chats-list >> text=Mine").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Mine");
  await tab("message");
  await begin(page);
  await tab("stop");
  await page.keyboard.press("Enter");
  await finished(page);
  assert.equal(await page.evaluate(() => document.activeElement.id), "message");
});

for (const colorScheme of ["light", "dark"]) {
  test(`axe finds nothing, ${colorScheme}, wide and narrow; nothing scrolls sideways`, async (t) => {
    const { page } = await visitServer(t, browser, { context: { colorScheme, reducedMotion: "reduce" } });
    await check(page, "a new chat");
    await keep(page, [...RICH.flatMap((text) => [asked(text.slice(0, 200)), answered(text)]), asked("Look it up"), CALL], "word ".repeat(12));
    await check(page, "answers");
    await page.locator(".asked").first().getByText("Edit").click();
    await page.click("text=Rename");
    await page.evaluate(() => (document.getElementById("problem").textContent = "something is wrong"));
    assert.equal(await page.locator(".asked").first().getByText("Edit").isVisible(), false);
    await check(page, "fields");
    for (const width of [1280, 320]) {
      await page.setViewportSize({ width, height: 700 });
      await page.click("#show-settings");
      await page.locator("#settings details").evaluateAll((all) => all.forEach((one) => (one.open = true)));
      await check(page, `settings, ${width}`);
      assert.ok(await page.locator("#settings").evaluate((dialog) => dialog.scrollWidth <= dialog.clientWidth), "settings scroll sideways");
      await page.keyboard.press("Escape");
    }
    await page.click("#show-chats");
    await check(page, "narrow");
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= 320), "it scrolls sideways");
  });
}
