/** What a caller writes in TypeScript; compiled by tests/hosts/test_node.py, never run. */

import { type AnswerOptions, type Message, type Piece, GlmRuntimeError, load } from "glm-runtime";

const model = await load("folder", { threads: 2, verify: true });
const messages: Message[] = [{ role: "user", content: "Hello" }];
const options: AnswerOptions = { temperature: 0, stop: ["\n"], signal: AbortSignal.timeout(1000), seed: 1n };
try {
  for await (const piece of model.newSession().chat(messages, { ...options, enableThinking: true })) {
    const { text, reasoning, tokenId, toolCalls }: Piece = piece;
    const reason: "stop" | "length" | "stop_string" | "tool_calls" | null = piece.finishReason;
    console.log(text, reasoning, tokenId, toolCalls[0]?.arguments, reason);
  }
} catch (error) {
  if (!(error instanceof GlmRuntimeError)) throw error;
}

// @ts-expect-error: no such option
model.chat(messages, { temperatur: 0 });
// @ts-expect-error: a number is expected
model.generate("Hello", { topK: "many" });
