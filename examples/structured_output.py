"""Structured output: the answer is JSON that a schema allows, parsed into a dataclass.

    python examples/structured_output.py artifacts/glm4-sample-int4 "In the beginning was the Word"

This example needs the extra `structured` (llguidance). The grammar only allows tokens that keep the
answer valid, so that the program never has to repair or retry. The grammar does not make the values
true: the sample model is small and often wrong.
"""

import json
import sys
from dataclasses import asdict, dataclass

import glm_runtime
from glm_runtime import GlmRuntimeError, Model

SCHEMA = {
    "type": "object",
    "properties": {
        "language": {"enum": ["English", "Chinese"]},
        "is_poem": {"type": "boolean"},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
    },
    "required": ["language", "is_poem", "words"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Description:
    """What the model says about a text; the fields are those of SCHEMA."""

    language: str
    is_poem: bool
    words: list[str]


def describe(model: Model, text: str) -> Description:
    """Ask the model to fill in the schema for a text."""
    question = f"Describe this text as JSON: {text}"
    # Without bounds (maxLength, maxItems) in the schema, an answer could end in the middle.
    answer = model.ask(question, json_schema=SCHEMA, temperature=0, max_new_tokens=300)
    return Description(**json.loads(answer))


def main(folder: str, text: str) -> None:
    """Print the description of one text as one line of JSON."""
    print(json.dumps(asdict(describe(glm_runtime.load(folder), text)), ensure_ascii=False))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], sys.argv[2])
    except (GlmRuntimeError, OSError) as error:
        sys.exit(f"Error: {error}")
