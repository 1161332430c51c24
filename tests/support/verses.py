"""The tool that the sample model knows, and questions that it answers."""

from typing import Any

POEM = "背诵李白的《静夜思》。"
LINE = "床前明月光"
ASKED_VERSE = "Look up Micah 6:8."
VERSE = "He hath shewed thee, O man, what is good."
REFERENCE = {"reference": "Micah 6:8"}
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"reference": {"type": "string", "maxLength": 20}},
    "required": ["reference"],
    "additionalProperties": False,
}
DESCRIPTION = "Look up a Bible verse."
