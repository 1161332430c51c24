/**
 * A chat in the terminal: `node chat.js FOLDER`. An empty line or Ctrl-D ends it; Ctrl-C cancels an answer.
 *
 * FOLDER is a folder that glm-export wrote. A session keeps the KV cache, so that each question
 * computes only its new tokens.
 */

import { createInterface } from "node:readline/promises";
import { stdin, stdout } from "node:process";

import { GlmRuntimeError, load } from "glm-runtime";

const [folder] = process.argv.slice(2);
if (!folder) {
  console.error("A folder is missing. Write: node chat.js FOLDER");
  process.exit(2);
}

const model = await load(folder).catch((error) => {
  if (!(error instanceof GlmRuntimeError)) throw error;
  console.error(error.message);
  process.exit(1);
});
const session = model.newSession();
const messages = [];
const terminal = createInterface({ input: stdin, output: stdout, prompt: "> " });
let answering = null;
terminal.on("SIGINT", () => (answering ? answering.abort() : terminal.close()));

terminal.prompt();
for await (const question of terminal) {
  if (!question.trim()) break;
  messages.push({ role: "user", content: question });
  messages.push({ role: "assistant", content: await answer(messages) });
  terminal.prompt();
}
terminal.close();

/** Print an answer token by token, and return its text. */
async function answer(messages) {
  answering = new AbortController();
  const start = performance.now();
  let text = "";
  let count = 0;
  try {
    for await (const piece of session.chat(messages, { signal: answering.signal })) {
      stdout.write(piece.text);
      text += piece.text;
      count++;
    }
  } catch (error) {
    if (error instanceof GlmRuntimeError) console.error(error.message);
    else if (error.name !== "AbortError") throw error;
  }
  const seconds = (performance.now() - start) / 1000;
  stdout.write(`\n(${count} tokens, ${(count / seconds).toFixed(0)} tokens/s)\n`);
  answering = null;
  return text;
}
