"""A chat in the terminal: one conversation, streamed token by token.

    python examples/chat.py artifacts/glm4-sample-int4

Type a message and press Enter; an empty line or Ctrl-D ends the program.
"""

import sys
import time

import glm_runtime
from glm_runtime import Conversation, GlmRuntimeError


def answer(conversation: Conversation, question: str) -> None:
    """Print the answer while it is generated, then its length and speed."""
    start, num_tokens = time.perf_counter(), 0
    for piece in conversation.ask(question):
        num_tokens += 1
        print(piece.text, end="", flush=True)
    rate = num_tokens / (time.perf_counter() - start)
    print(f"\n({num_tokens} tokens, {rate:.1f} tokens/s)\n")


def main(folder: str) -> None:
    """Ask the model for every line of standard input."""
    model = glm_runtime.load(folder)
    # "slide" drops the oldest turns when the context is full; the default raises an error.
    conversation = Conversation(model, overflow="slide")
    while question := read_line("> "):
        answer(conversation, question)


def read_line(prompt: str) -> str:
    """Read one line; the end of the input counts as an empty line."""
    try:
        return input(prompt).strip()
    except EOFError:
        return ""


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except (GlmRuntimeError, OSError) as error:
        sys.exit(f"Error: {error}")
