"""An agent that calls a Python function: the model asks for a verse, the program looks it up.

    python examples/tool_agent.py artifacts/glm4-sample-int4 "Look up Micah 6:8."

A tool is declared by a JSON schema, as OpenAI's API declares it. The loop ends when the model
answers in text. The sample model knows when to call this tool; a larger model also uses the result.
"""

import json
import sys

import glm_runtime
from glm_runtime import ChatOptions, Conversation, GlmRuntimeError, ToolCall

VERSES = {
    "Micah 6:8": "He hath shewed thee, O man, what is good.",
    "Psalm 23:1": "The LORD is my shepherd; I shall not want.",
}
GET_VERSE = {
    "name": "get_verse",
    "description": "Look up a Bible verse.",
    "parameters": {
        "type": "object",
        "properties": {"reference": {"type": "string"}},
        "required": ["reference"],
    },
}
MAX_STEPS = 4  # Without a limit, a model could call tools forever.


def run_tool(call: ToolCall) -> str:
    """Return the result as text; an error is a result too, so that the model can correct itself."""
    try:
        reference = json.loads(call.arguments)["reference"]
    except (ValueError, KeyError, TypeError):
        return "Error: the arguments must be a JSON object with a reference."
    return VERSES.get(reference, f"Error: no verse {reference!r}.")


def main(folder: str, question: str) -> None:
    """Answer one question, with as many tool calls as the model needs."""
    model = glm_runtime.load(folder)
    options = ChatOptions(tools=(GET_VERSE,))
    # Greedy decoding (temperature 0) always chooses the most probable call.
    conversation = Conversation(model, temperature=0, max_new_tokens=200, options=options)
    pieces = list(conversation.ask(question))
    for _ in range(MAX_STEPS):
        calls = pieces[-1].tool_calls
        if not calls:
            break
        results = [run_tool(call) for call in calls]
        for call, result in zip(calls, results, strict=True):
            print(f"{call.name}({call.arguments}) -> {result}")
        pieces = list(conversation.return_results(results))
    print("".join(piece.text for piece in pieces))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], sys.argv[2])
    except (GlmRuntimeError, OSError) as error:
        sys.exit(f"Error: {error}")
