"""Recognizes what stands before the arguments of a tool call: the tool's name and a line end.

Read `tool_calls.py` for the whole call.
"""

from collections.abc import Sequence
from dataclasses import dataclass

FENCE = "```"
_BLANKS = " \t"


@dataclass(frozen=True)
class CallHead:
    """The text before the opening brace of a call.

    Attributes:
        name: name of the declared tool; empty if the text is not the head of a call.
        length: number of characters before the brace.
        has_fence: whether a code fence opens before the brace.
    """

    name: str = ""
    length: int = 0
    has_fence: bool = False


def read_head(text: str, names: Sequence[str]) -> CallHead | None:
    """Read the head at the start of a line; `None` if more text is needed to know.

    Args:
        text: text from the start of a line on.
        names: names of the declared tools.
    """
    start = len(text) - len(text.lstrip(_BLANKS))
    is_open = start == len(text)
    for name in names:
        is_open = is_open or (len(text) - start < len(name) and name.startswith(text[start:]))
        if not text.startswith(name, start):
            continue
        gap = _read_gap(text, start + len(name))
        if gap is None:
            is_open = True
        elif gap.length:
            return CallHead(name, gap.length, gap.has_fence)
    return None if is_open else CallHead()


def _read_gap(text: str, place: int) -> CallHead | None:
    """Read from the end of the name to the brace: a line end, blank lines, and one fence."""
    end = _skip(text, place, _BLANKS)
    if text[end : end + 1] == "\r":
        end += 1
    if end == len(text):
        return None
    if text[end] != "\n":
        return CallHead()
    end = _skip(text, end, _BLANKS + "\r\n")
    has_fence = text.startswith(FENCE, end)
    if has_fence:
        line_end = text.find("\n", end)
        info = text[end + len(FENCE) : line_end if line_end >= 0 else len(text)].rstrip(" \t\r")
        if info and not info.isalpha():
            return CallHead()
        if line_end < 0:
            return None
        end = _skip(text, line_end, _BLANKS + "\r\n")
    if end == len(text) or (not has_fence and FENCE.startswith(text[end:])):
        return None
    return CallHead("?", end, has_fence) if text[end] == "{" else CallHead()


def _skip(text: str, place: int, characters: str) -> int:
    while place < len(text) and text[place] in characters:
        place += 1
    return place
