// OpenAI's JavaScript client on a server of ours.
//
//     npm install openai
//     glm-run serve artifacts/glm4-sample-int4
//     node openai_client.js http://127.0.0.1:8080

import OpenAI from "openai";

const url = process.argv[2];
if (url === undefined) {
  console.error("Usage: node openai_client.js URL");
  process.exit(1);
}
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
const model = (await client.models.list()).data[0].id;
const stream = client.chat.completions.stream({
  model,
  messages: [{ role: "user", content: "背诵李白的《静夜思》。" }],
  stream_options: { include_usage: true },
});
stream.on("content", (text) => process.stdout.write(text));
const { usage } = await stream.finalChatCompletion();
console.log(`\n${usage.prompt_tokens} + ${usage.completion_tokens} tokens`);
