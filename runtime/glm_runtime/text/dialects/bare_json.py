"""Calls of GLM-Z1-Rumination: a JSON object with the tool's name and its arguments.

{"name": "search", "arguments": {"query": "..."}}
"""

from dataclasses import dataclass

from glm_runtime.text.dialects.dialect import (
    BLANKS,
    NO_HEAD,
    SPACES,
    CallBody,
    CallHead,
    match_one,
    skip,
)
from glm_runtime.text.dialects.json_scanner import write_string
from glm_runtime.text.dialects.name_line import JsonBody


@dataclass(frozen=True)
class BareJsonCalls:
    """The dialect, for tools with these names."""

    names: tuple[str, ...]
    mark = mark_text = ""
    endings = ("}",)

    def read_head(self, text: str, *, is_first: bool) -> CallHead | None:
        """Read up to the opening brace of the arguments."""
        del is_first
        names = tuple(map(write_string, self.names))
        parts = (("{",), ('"name"',), (":",), names, (",",), ('"arguments"',), (":",), ("{",))
        place, name = skip(text, 0, BLANKS), ""
        for wanted in parts:
            found = match_one(text, place, wanted)
            if not found:
                return None if found is None else NO_HEAD
            if wanted is names:
                name = self.names[names.index(found)]
            place = skip(text, place + len(found), SPACES)
        return CallHead(name, text.rindex("{", 0, place))

    def start_body(self, name: str) -> CallBody:
        """Start to read the arguments."""
        del name
        return _BareBody()


class _BareBody:
    """The object of the arguments, and the brace that ends the call."""

    def __init__(self) -> None:
        self._object = JsonBody()
        self._is_read = False  # the object of the arguments
        self._rest = ""
        self.arguments = self._object.arguments
        self.is_certain = True
        self.is_broken = False

    def read(self, text: str) -> int | None:
        """Read up to the brace that ends the call."""
        begin = 0
        if not self._is_read:
            end = self._object.read(text)
            self.is_broken = self._object.is_broken
            if end is None or self.is_broken:
                return end
            self._is_read, begin = True, end
        place = skip(text, begin, SPACES)
        if place == len(text):
            return None
        self.is_broken = text[place] != "}"
        self._rest = text[place:]
        return place + 1

    def end(self) -> bool:
        """Return False: a call that is not closed is not complete."""
        self._object.end()
        self.arguments.append(self._rest)
        return False
