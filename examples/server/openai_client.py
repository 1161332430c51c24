"""OpenAI's Python client on a server of ours: a stream, a JSON schema, and a tool.

    glm-run serve artifacts/glm4-sample-int4
    python examples/server/openai_client.py http://127.0.0.1:8080

This example needs the package `openai`.
"""

import json
import sys

import openai
import pydantic

POEMS = {"静夜思": "床前明月光，疑是地上霜。"}
PROPERTIES = {"title": {"type": "string"}, "author": {"type": "string"}}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_poem",
        "description": "Look up a poem by its title.",
        "parameters": {"type": "object", "properties": PROPERTIES},
    },
}


class Verdict(pydantic.BaseModel):
    """The form of the second answer."""

    is_poem: bool


def main() -> None:
    """Send three requests, and print the answers."""
    if len(sys.argv) != 2:
        sys.exit("Usage: python examples/server/openai_client.py URL")
    client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none")
    model = client.models.list().data[0].id
    asked = [{"role": "user", "content": "背诵李白的《静夜思》。"}]

    for chunk in client.chat.completions.create(model=model, messages=asked, stream=True):
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()

    parsed = client.chat.completions.parse(model=model, messages=asked, response_format=Verdict)
    print(parsed.choices[0].message.parsed)

    messages = [{"role": "user", "content": "《静夜思》的第一句是什么？"}]
    settings = {"model": model, "tools": [TOOL], "temperature": 0}
    message = client.chat.completions.create(messages=messages, **settings).choices[0].message
    messages.append(message.model_dump(exclude_none=True))
    for call in message.tool_calls or []:
        title = json.loads(call.function.arguments).get("title", "")
        result = POEMS.get(title, "There is no such poem.")
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    reply = client.chat.completions.create(messages=messages, **settings)
    print(reply.choices[0].message.content)


if __name__ == "__main__":
    main()
