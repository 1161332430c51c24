/** The page on a server: asking, stopping, keeping chats, editing, tools, models and errors. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

import { ask, choose, finished, launch, test } from "./chromium.js";
import { LONG, POEM, SERVER, VERSE, answers, begin, opened, questions, readBodies, visitServer } from "./server_browser.js";

const browser = await launch();
const greedy = { temperature: 0 };
const TOOLS = [
  {
    type: "function",
    function: {
      name: "get_verse",
      description: "Look up a Bible verse.",
      parameters: { type: "object", properties: { reference: { type: "string" } }, required: ["reference"] },
    },
  },
];

/** What the server answers to a script that does not stream. */
async function askServer(content) {
  const body = { model: "sample", temperature: 0, messages: [{ role: "user", content }] };
  const response = await fetch(`${SERVER}v1/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return (await response.json()).choices[0].message.content;
}

test("an answer grows token by token, and has its facts; the next one reads the cache", async (t) => {
  const { page, requests } = await visitServer(t, browser);
  await choose(page, greedy);
  await page.evaluate(() => {
    window.lengths = new Set();
    const watcher = new MutationObserver(() => window.lengths.add(document.querySelector(".turn:not(.asked) > .text")?.textContent.length));
    watcher.observe(document.getElementById("turns"), { childList: true, subtree: true, characterData: true });
  });
  assert.equal(await ask(page, VERSE), (await askServer(VERSE)).trim());
  assert.ok((await page.evaluate(() => window.lengths.size)) > 2);
  const facts = () => page.locator(".turn:not(.asked) .facts span").last().textContent();
  assert.match(await facts(), /^\d+ tokens(, \d+\.\d tokens\/s)?, first token after \d+\.\d\d s, \d+ of \d+ prompt tokens cached$/);
  assert.match(await ask(page, POEM), /床前明月光，疑是地上霜，\n举头望明月，低头思故乡。$/);
  assert.match(await facts(), /, [1-9]\d* of \d+ prompt tokens cached$/);
  const [first, second] = readBodies(requests);
  assert.deepEqual(first, {
    model: "sample",
    messages: [{ role: "user", content: VERSE }],
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
  });
  assert.deepEqual(second.messages.map(({ role }) => role), ["user", "assistant", "user"]);
  assert.equal(await page.textContent("#announcer"), `Answer: ${(await answers(page))[1]}`);
});

for (const how of ["button", "Escape"]) {
  test(`an answer is stopped in the middle (${how}), its beginning is kept, and the next one comes`, async (t) => {
    const { page } = await visitServer(t, browser);
    await choose(page, greedy);
    await begin(page);
    await page.waitForFunction(() => document.querySelector(".is-writing > .text")?.textContent.length > 300);
    if (how === "button") await page.click("#stop");
    else await page.keyboard.press("Escape");
    await finished(page);
    const [shown] = await answers(page);
    assert.match(await page.locator(".turn:not(.asked) .facts span").textContent(), /^\d+ tokens, \d+\.\d tokens\/s, .*stopped$/);
    await page.reload();
    await opened(page);
    assert.deepEqual(await answers(page), [shown]);
    await page.click("#new-chat");
    assert.match(await ask(page, VERSE), /begotten Son/);
  });
}

test("chats are kept on reload, and are opened, renamed, exported and deleted", async (t) => {
  const { page } = await visitServer(t, browser);
  const titles = () => page.locator("#chats-list .chat-title").allTextContents();
  await choose(page, greedy);
  await ask(page, VERSE);
  await page.click("#new-chat");
  await ask(page, POEM);
  const before = await answers(page);
  await page.reload();
  await opened(page);
  assert.deepEqual(await answers(page), before);
  assert.deepEqual(await questions(page), [POEM]);
  assert.equal(await page.inputValue("#temperature"), "0");
  assert.deepEqual(await titles(), [POEM, VERSE]);
  await page.click(`#chats-list >> text=${VERSE}`);
  assert.deepEqual(await questions(page), [VERSE]);
  await page.click("text=Rename");
  await page.keyboard.type("A verse");
  await page.keyboard.press("Enter");
  await page.locator("#chats-list >> text=A verse").waitFor();
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("text=Export")]);
  assert.equal(download.suggestedFilename(), "A verse.json");
  const exported = JSON.parse(await readFile(await download.path(), "utf8"));
  assert.equal(exported.title, "A verse");
  assert.deepEqual(exported.messages, [{ role: "user", content: VERSE }, { role: "assistant", content: await askServer(VERSE) }]);
  page.once("dialog", (dialog) => dialog.dismiss());
  await page.click("#chats-list >> text=Delete");
  assert.deepEqual((await titles()).sort(), ["A verse", POEM]);
  page.once("dialog", (dialog) => dialog.accept());
  await page.click("#chats-list >> text=Delete");
  await page.waitForFunction(() => document.querySelectorAll("#chats-list li").length === 1);
  assert.equal(await page.locator(".turn").count(), 0);
  await page.reload();
  await opened(page);
  assert.deepEqual(await titles(), [POEM]);
  assert.equal(await page.locator(".turn").count(), 0);
});

test("a question is edited: what followed it is replaced", async (t) => {
  const { page, requests } = await visitServer(t, browser);
  await choose(page, greedy);
  await ask(page, VERSE);
  await ask(page, POEM);
  await page.locator(".asked").first().getByText("Edit").click();
  await page.locator(".edit textarea").fill("Recite Genesis 1:1.");
  await page.keyboard.press("Escape");
  assert.deepEqual(await questions(page), [VERSE, POEM]);
  await page.locator(".asked").first().getByText("Edit").click();
  assert.equal(await page.locator(".edit textarea").inputValue(), VERSE);
  await page.locator(".edit textarea").fill("Recite Genesis 1:1.");
  await page.locator(".edit").getByText("Send").click();
  await finished(page);
  assert.deepEqual(await questions(page), ["Recite Genesis 1:1."]);
  assert.match((await answers(page)).join("|"), /^In the beginning God[^|]*$/);
  assert.deepEqual(readBodies(requests).at(-1).messages, [{ role: "user", content: "Recite Genesis 1:1." }]);
});

test("an answer is regenerated, with what was said before", async (t) => {
  const { page, requests } = await visitServer(t, browser);
  await choose(page, greedy);
  await ask(page, VERSE);
  await ask(page, POEM);
  const before = await answers(page);
  assert.equal(await page.locator(".turn").first().getByText("Regenerate").count(), 0);
  await page.locator(".turn >> text=Regenerate >> visible=true").click();
  await finished(page);
  assert.deepEqual(await answers(page), before);
  const [, second, third] = readBodies(requests);
  assert.deepEqual(third, second);
  await page.reload();
  await opened(page);
  assert.equal(await page.locator(".turn").count(), 4);
});

test("a page that is loaded again in the middle of an answer keeps the question, and answers it", async (t) => {
  const { page } = await visitServer(t, browser);
  await choose(page, { ...greedy, system: "Answer with the text only." });
  await begin(page);
  await page.reload();
  await opened(page);
  assert.equal(await page.locator(".turn").count(), 1);
  await choose(page, { "max-new-tokens": 4 });
  await page.locator(".asked").getByText("Answer").click();
  await finished(page);
  assert.match(await page.locator(".turn:not(.asked) .facts span").textContent(), /^4 tokens.*reached the length limit$/);
  assert.equal(await page.inputValue("#system"), "Answer with the text only.");
});

test("a new chat in the middle of an answer ends it, and keeps its beginning", async (t) => {
  const { page } = await visitServer(t, browser);
  await choose(page, greedy);
  await begin(page);
  await page.click("#new-chat");
  await finished(page);
  assert.equal(await page.locator(".turn").count(), 0);
  assert.match(await ask(page, VERSE), /begotten Son/);
  await page.click(`#chats-list >> text=${LONG}`);
  assert.match(await page.locator(".turn:not(.asked) .facts span").textContent(), /stopped$/);
});

test("a call of a tool is shown, its result is asked for and sent", async (t) => {
  const { page, requests } = await visitServer(t, browser);
  await page.click("#show-settings");
  await page.click("#settings summary >> text=Tools");
  await page.fill("#tools", "[{");
  await page.click("#settings .main");
  assert.ok(await page.locator("#settings").evaluate((dialog) => dialog.open), "tools that are not JSON were taken");
  await page.fill("#tools", JSON.stringify(TOOLS));
  await page.fill("#temperature", "0");
  await page.click("#settings .main");
  await ask(page, "Look up Micah 6:8.");
  assert.equal(await page.textContent(".call-title"), "Calls get_verse");
  assert.deepEqual(JSON.parse(await page.textContent(".call pre")), { reference: "Micah 6:8" });
  assert.match(await page.textContent("#announcer"), /^The model calls get_verse\.$/);
  await page.reload();
  await opened(page);
  await page.getByLabel("Result of get_verse").fill("He hath shewed thee, O man, what is good.");
  await page.click("text=Send result");
  await finished(page);
  assert.equal(await page.locator("#results").isVisible(), false);
  assert.equal(await page.locator(".turn").count(), 4);
  assert.ok((await answers(page)).at(-1).length > 10);
  const { messages, tools } = readBodies(requests).at(-1);
  assert.deepEqual(tools, TOOLS);
  const [, { tool_calls: calls }, result] = messages;
  assert.equal(calls[0].function.name, "get_verse");
  assert.deepEqual(result, { role: "tool", content: "He hath shewed thee, O man, what is good.", tool_call_id: calls[0].id });
});

test("reasoning is folded, and kept apart from the answer", async (t) => {
  const { page, requests } = await visitServer(t, browser);
  await choose(page, { ...greedy, thinking: "on" });
  const shown = await ask(page, VERSE);
  const thoughts = page.locator(".thinking");
  assert.equal(await thoughts.evaluate((element) => element.open), false);
  await thoughts.locator("summary").click();
  const words = await thoughts.locator(".text").innerText();
  assert.ok(words.length > 5 && !shown.includes(words));
  await page.reload();
  await opened(page);
  assert.equal(await page.inputValue("#thinking"), "on");
  for (const thinking of ["off", ""]) {
    await choose(page, { thinking, "max-new-tokens": 2 });
    await ask(page, VERSE);
  }
  const sent = readBodies(requests).map(({ chat_template_kwargs: variables }) => variables);
  assert.deepEqual(sent, [{ enable_thinking: true }, { enable_thinking: false }, undefined]);
});

test("another model answers, and is chosen again on reload", async (t) => {
  const { page, requests } = await visitServer(t, browser);
  await choose(page, { ...greedy, "top-p": 0.9, seed: 7, "max-new-tokens": 3 });
  await page.selectOption("#model", "poems");
  assert.match(await page.textContent("#facts"), /^poems on this server; context of 4,096 tokens\.$/);
  await ask(page, VERSE);
  const { model, top_p: topP, seed, max_completion_tokens: limit } = readBodies(requests).at(-1);
  assert.deepEqual([model, topP, seed, limit], ["poems", 0.9, 7, 3]);
  await page.reload();
  await opened(page);
  assert.equal(await page.inputValue("#model"), "poems");
});

test("what the server refuses returns to the message field", async (t) => {
  const { page } = await visitServer(t, browser, { expected: /status of 400/ });
  await choose(page, { temperature: 3 });
  await page.fill("#message", VERSE);
  await page.keyboard.press("Enter");
  await page.locator("#problem:has-text('temperature')").waitFor();
  assert.equal(await page.inputValue("#message"), VERSE);
  assert.equal(await page.locator(".turn").count(), 0);
  assert.equal(await page.locator("#chats-list li").count(), 0);
});

test("without a connection the question is kept, and a regenerated answer is not lost", async (t) => {
  const { page, visitor } = await visitServer(t, browser, { expected: /ERR_INTERNET_DISCONNECTED/ });
  await choose(page, greedy);
  await ask(page, VERSE);
  const before = await answers(page);
  await visitor.setOffline(true);
  await page.locator(".turn").getByText("Regenerate").click();
  await page.locator("#problem:has-text('the server cannot be reached')").waitFor();
  assert.deepEqual(await answers(page), before);
  await page.fill("#message", POEM);
  await page.keyboard.press("Enter");
  await page.waitForFunction((words) => document.getElementById("message").value === words, POEM);
  await visitor.setOffline(false);
  await page.keyboard.press("Enter");
  await finished(page);
  assert.equal((await answers(page)).length, 2);
});
