"""Anthropic's Python client on a server of ours.

    glm-run serve artifacts/glm4-sample-int4
    python examples/server/anthropic_client.py http://127.0.0.1:8080 glm4-sample-int4

This example needs the package `anthropic`.
"""

import sys

import anthropic


def main() -> None:
    """Stream one answer, and print how many tokens it took."""
    if len(sys.argv) != 3:
        sys.exit("Usage: python examples/server/anthropic_client.py URL MODEL")
    client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none")
    asked = [{"role": "user", "content": "Recite Genesis 1:1."}]
    with client.messages.stream(model=sys.argv[2], max_tokens=200, messages=asked) as stream:
        for text in stream.text_stream:
            print(text, end="", flush=True)
        usage = stream.get_final_message().usage
    print(f"\n{usage.input_tokens} + {usage.output_tokens} tokens")


if __name__ == "__main__":
    main()
