"""Calls of GLM-4-0414 and GLM-Z1: the tool's name alone on a line, and a JSON object.

As in the models' own server, blanks around the name, blank lines before the object and a code fence
around the object are allowed. A template of another kind is read in this dialect, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from glm_runtime.text.dialects.dialect import (
    BLANKS,
    FENCE,
    NO_HEAD,
    SPACES,
    CallBody,
    CallHead,
    match_one,
    skip,
)
from glm_runtime.text.dialects.json_scanner import JsonScanner, is_object_text


@dataclass(frozen=True)
class NameLineCalls:
    """The dialect, for tools with these names."""

    names: tuple[str, ...]
    mark = mark_text = ""
    endings = ("}", FENCE)

    def read_head(self, text: str, *, is_first: bool) -> CallHead | None:
        """Read the tool's name, a line end, blank lines, and one fence."""
        del is_first
        return read_name_line(text, self.names, ("{",))

    def start_body(self, name: str) -> CallBody:
        """Start to read the object."""
        del name
        return JsonBody()


class JsonBody:
    """A JSON object; the arguments are its text, as the model wrote it."""

    def __init__(self) -> None:
        self.arguments: list[str] = []
        self.is_certain = False
        self.is_broken = False
        self._scanner = JsonScanner()
        self._rest = ""  # after the first wrong character

    def read(self, text: str) -> int | None:
        """Read up to the brace that closes the first one."""
        end = self._scanner.find_end(text)
        self.arguments.append(text if end is None else text[:end])
        self.is_certain = self._scanner.has_entry
        self.is_broken = self._scanner.is_broken
        if self.is_broken:
            self._rest = text[end:]
        elif end is not None:
            self.is_broken = not is_object_text("".join(self.arguments))
        return end

    def end(self) -> bool:
        """Return False: an object that is not closed is not complete."""
        self.arguments.append(self._rest)
        return False


def read_name_line(text: str, names: Sequence[str], openings: tuple[str, ...]) -> CallHead | None:
    """Read the head at the start of a line; `None` if more text is needed to know.

    Args:
        text: text from the start of a line on.
        names: names of the declared tools.
        openings: texts with which the body may begin.
    """
    start = skip(text, 0, BLANKS)
    is_open = start == len(text)
    for name in names:
        is_open = is_open or (len(text) - start < len(name) and name.startswith(text[start:]))
        if not text.startswith(name, start):
            continue
        gap = _read_gap(text, start + len(name), openings)
        if gap is None:
            is_open = True
        elif gap.length:
            return CallHead(name, gap.length, gap.has_fence)
    return None if is_open else NO_HEAD


def skip_line_end(text: str, place: int) -> int | None:
    """Return the place after the rest of a blank line; -1 if it is not blank, `None` if open."""
    end = skip(text, place, BLANKS)
    if text[end : end + 1] == "\r":
        end += 1
    if end == len(text):
        return None
    return end + 1 if text[end] == "\n" else -1


def _read_gap(text: str, place: int, openings: tuple[str, ...]) -> CallHead | None:
    """Read from the end of the name to the body."""
    line_end = skip_line_end(text, place)
    if line_end is None or line_end < 0:
        return None if line_end is None else NO_HEAD
    end = skip(text, line_end, SPACES)
    has_fence = text.startswith(FENCE, end)
    if has_fence:
        line_end = text.find("\n", end)
        info = text[end + len(FENCE) : line_end if line_end >= 0 else len(text)].rstrip(" \t\r")
        if info and not info.isalpha():
            return NO_HEAD
        if line_end < 0:
            return None
        end = skip(text, line_end, SPACES)
    found = match_one(text, end, openings if has_fence else (*openings, FENCE))
    if found is None:
        return None
    return CallHead("?", end, has_fence) if found else NO_HEAD
