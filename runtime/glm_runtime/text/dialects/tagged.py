"""Calls of GLM-4.5 and later, whose parts stand between tags.

    <tool_call>get_verse
    <arg_key>reference</arg_key>
    <arg_value>Micah 6:8</arg_value>
    </tool_call>

The template writes a string as it is and any other value as JSON. Reading turns this around, with
the tool's schema where it has one. Blanks around names and between tags are allowed; the text of a
string is not changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from glm_runtime.text.dialects.argument_types import list_types, write_value
from glm_runtime.text.dialects.dialect import (
    NO_HEAD,
    SPACES,
    CallBody,
    CallHead,
    count_held,
    match_one,
    skip,
)
from glm_runtime.text.dialects.json_scanner import write_string

_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_KEY, _KEY_END = "<arg_key>", "</arg_key>"
_VALUE, _VALUE_END = "<arg_value>", "</arg_value>"
_ONLY_TEXT = frozenset({"string"})
# Tokens of the format, which are part of the text even if the tokenizer calls them special.
TAGS = (_CALL, _CALL_END, _KEY, _KEY_END, _VALUE, _VALUE_END)


@dataclass(frozen=True)
class TaggedCalls:
    """The dialect.

    Attributes:
        parameters: JSON schema of the parameters of each declared tool, by the tool's name.
    """

    parameters: Mapping[str, object]
    mark = mark_text = _CALL
    endings = (_CALL_END,)

    def read_head(self, text: str, *, is_first: bool) -> CallHead | None:
        """Read the tag and the tool's name, up to the next tag."""
        del is_first
        if not text.startswith(_CALL):
            return None if _CALL.startswith(text) else NO_HEAD
        place = skip(text, len(_CALL), SPACES)
        is_open = place == len(text)
        for name in self.parameters:
            found = match_one(text, place, (name,))
            is_open = is_open or found is None
            if not found:
                continue
            end = skip(text, place + len(name), SPACES)
            tag = match_one(text, end, (_KEY, _CALL_END))
            is_open = is_open or tag is None
            if tag:
                return CallHead(name, end)
        return None if is_open else NO_HEAD

    def start_body(self, name: str) -> CallBody:
        """Start to read the arguments."""
        return _TaggedBody(self.parameters[name])


class _TaggedBody:
    """The arguments up to the end of the call; the text of a string arrives as it is written."""

    def __init__(self, parameters: object) -> None:
        self.arguments: list[str] = []
        self.is_certain = True
        self.is_broken = False
        self._parameters = parameters
        self._tag = ""  # the tag whose text is being read
        self._key = ""
        self._types: frozenset[str] | None = None  # of the value that is being read
        self._unread = ""
        self._is_begun = False  # a part of a string is in the arguments
        self._searched = 0  # characters of a value that are known to have no closing tag

    def read(self, text: str) -> int | None:
        """Read up to the closing tag of the call."""
        self._unread += text
        while (is_ended := self._step()) is False:
            pass
        return len(text) - len(self._unread) if is_ended else None

    def end(self) -> bool:
        """Add what is not read to the arguments; the call is not complete."""
        self.arguments.append(self._unread)
        return False

    def _step(self) -> bool | None:
        """Take the next part; return whether the call ended, or `None` if no part is complete."""
        if self._tag == _KEY:
            return self._take_key()
        if self._tag == _VALUE:
            return self._take_value()
        wanted = (_VALUE,) if self._tag == _KEY_END else (_KEY, _CALL_END)
        place = skip(self._unread, 0, SPACES)
        found = match_one(self._unread, place, wanted)
        if not found:
            self.is_broken = found is not None
            return None
        self._unread, self._tag = self._unread[place + len(found) :], found
        if found == _CALL_END:
            self.arguments.append("}" if self.arguments else "{}")
            return True
        return False

    def _take_key(self) -> bool | None:
        key, _, rest = self._unread.partition("<")
        if len(key) == len(self._unread) or _KEY_END.startswith("<" + rest):
            self.is_broken = "\n" in key
            return None
        if not key.strip() or "\n" in key or not rest.startswith(_KEY_END[1:]):
            self.is_broken = True
            return None
        self._key, self._tag = key.strip(), _KEY_END
        self._types = list_types(self._parameters, self._key)
        start = ", " if self.arguments else "{"
        self.arguments.append(f"{start}{write_string(self._key)}: ")
        self._unread = rest[len(_KEY_END) - 1 :]
        return False

    def _take_value(self) -> bool | None:
        end = self._unread.find(_VALUE_END, max(self._searched - len(_VALUE_END), 0))
        self._searched = len(self._unread)
        if self._types == _ONLY_TEXT:
            return self._take_text(end)
        if end < 0:
            return None
        value, self._unread = self._unread[:end], self._unread[end + len(_VALUE_END) :]
        self.arguments.append(write_value(value, self._types))
        self._tag, self._searched = "", 0
        return False

    def _take_text(self, end: int) -> bool | None:
        """Take what is there of a string."""
        is_whole = end >= 0
        if not is_whole:
            end = len(self._unread) - count_held(self._unread, _VALUE_END)
        start = "" if self._is_begun else '"'
        self.arguments.append(start + write_string(self._unread[:end])[1:-1])
        self._unread, self._is_begun, self._searched = self._unread[end:], not is_whole, 0
        if not is_whole:
            return None
        self.arguments.append('"')
        self._unread, self._tag = self._unread[len(_VALUE_END) :], ""
        return False
