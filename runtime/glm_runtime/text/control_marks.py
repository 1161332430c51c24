"""Keeps names of control tokens in a user's text from becoming control tokens.

A message may contain `<|user|>`, and the tokenizer would encode it as the beginning of a turn.
`ControlMarks.mark` puts a mark before and after each such name in messages and tools. Afterwards
the prompt's text shows which names the template wrote, and `divide` separates them from all other
text. As in transformers' `sanitize_control_tokens`, except that text around a name in a message is
not cut, so that the whole message gets the tokens of a text without control tokens.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from glm_runtime.errors import PromptError

# Code points that are no characters; texts do not contain them.
_START, _END = "\ufdd0", "\ufdd1"


class ControlMarks:
    """The names of a tokenizer's control tokens."""

    def __init__(self, names: Sequence[str]) -> None:
        ordered = sorted((name for name in names if name.strip()), key=len, reverse=True)
        pattern = "|".join(map(re.escape, ordered)) or "(?!)"  # without names nothing matches
        self._names = re.compile(pattern)
        self._parts = re.compile(
            f"{_START}(?P<marked>{pattern}){_END}|(?P<name>{pattern})|[{_START}{_END}]"
        )

    def mark(self, value: Any) -> Any:
        """Mark all names in a text, or in the texts of lists and of an object's keys and values."""
        if isinstance(value, str):
            plain = value.replace(_START, "").replace(_END, "")
            return self._names.sub(f"{_START}\\g<0>{_END}", plain)
        if isinstance(value, Mapping):
            return {self.mark(key): self.mark(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.mark(part) for part in value]
        return value

    def divide(self, text: str) -> Iterator[tuple[bool, str]]:
        """Yield (is control token, text) for the parts of a rendered prompt, without the marks."""
        plain, last = "", 0
        for match in self._parts.finditer(text):
            plain += text[last : match.start()] + (match["marked"] or "")
            last = match.end()
            if match["name"]:
                yield False, plain
                yield True, match["name"]
                plain = ""
        yield False, plain + text[last:]


def require_marks(text: str) -> None:
    """Check that a template did not write marks as escapes, where they would not be found.

    Raises:
        PromptError: it did.
    """
    if "\\ufdd0" in text.lower():
        raise PromptError(
            "the model's chat template writes texts with escapes, in which control tokens of "
            "messages cannot be found; turn is_sanitized off."
        )


def remove_marks(text: str) -> str:
    """Return a prompt without its marks."""
    return text.replace(_START, "").replace(_END, "")


def has_marks(text: str) -> bool:
    """Return whether a prompt has marks; otherwise it is encoded as it is."""
    return _START in text or _END in text
