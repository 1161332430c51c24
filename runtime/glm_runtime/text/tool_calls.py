"""Finds tool calls in an answer while it arrives.

GLM-4-0414 and Z1 call a tool by its name alone on a line and, on the next, its arguments as a JSON
object; nothing marks where a call begins. So a call must name a declared tool, and calls are the
last thing in an answer: whatever has other text after it on its line or below, stands inside a
code fence, or is not whole, stays text.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

_FENCE = "```"
# What may stand outside of strings in JSON.
_OUTSIDE = frozenset('{}[]:,"+-.0123456789eEtrufalsn \t\r\n')


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for.

    Attributes:
        name: of a declared tool.
        arguments: a JSON object, as the model wrote it.
    """

    name: str
    arguments: str


class _State(Enum):
    LINE_START = auto()  # a call may begin here
    LINE = auto()  # in the middle of a line of text
    ARGUMENTS = auto()  # after name and newline
    AFTER_CALL = auto()  # white space, another call, or the end


class ToolCallParser:
    """Passes text through, without the calls at its end.

    What comes out does not depend on how the text was cut.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """`names`: of the declared tools; without any, everything is text."""
        self._names = tuple(names)
        self._state = _State.LINE_START if names else _State.LINE
        self._is_fenced = False
        self._line = ""  # what is known of the current line of text
        self._held = ""  # text that may be calls, from the first one on
        self._unread = ""
        self._name = ""
        self._braces = _Braces()
        self._calls: list[ToolCall] = []

    def add(self, text: str) -> str:
        """Take new text; return what is certainly text."""
        if not self._names:
            return text
        self._unread += text
        shown = ""
        while (step := self._step()) is not None:
            shown += step
        return shown

    def finish(self) -> tuple[str, tuple[ToolCall, ...]]:
        """The end of the answer: what was held back as text, and the calls."""
        shown = ""
        if not (self._held + self._unread).rstrip().endswith("}"):
            held, self._held = self._held + self._unread, ""
            return held, ()
        while self._held:
            if self._state is _State.AFTER_CALL and not self._unread.strip():
                return shown, tuple(self._calls)
            shown += self._give_up() + self.add("")
        return shown + self._unread, ()

    def _step(self) -> str | None:
        """Go on as far as one state leads; None when more text is needed."""
        if self._state is _State.LINE_START:
            return self._start_line()
        if self._state is _State.LINE:
            return self._take_line()
        if self._state is _State.ARGUMENTS:
            return self._take_arguments()
        return self._follow_call()

    def _start_line(self) -> str | None:
        if not self._unread:
            return None
        if not self._is_fenced:
            name = self._find_name(self._unread)
            if name:
                self._begin_call(name)
                return ""
            if self._may_be_name(self._unread):
                return None
        self._state, self._line = _State.LINE, ""
        return ""

    def _take_line(self) -> str | None:
        if not self._unread:
            return None
        line, newline, self._unread = self._unread.partition("\n")
        self._line += line
        if newline:
            if self._line.lstrip().startswith(_FENCE):
                self._is_fenced = not self._is_fenced
            self._state = _State.LINE_START
        return line + newline

    def _take_arguments(self) -> str | None:
        end = self._braces.find_end(self._unread)
        if self._braces.is_broken:
            return self._give_up()
        if end is None:
            self._held, self._unread = self._held + self._unread, ""
            return None
        text, self._unread = self._unread[:end], self._unread[end:]
        self._held += text
        arguments = self._held[self._begin :]
        if not _is_object(arguments):
            return self._give_up()
        self._calls.append(ToolCall(self._name, arguments))
        self._state = _State.AFTER_CALL
        return ""

    def _follow_call(self) -> str | None:
        """After a call: another one on a line of its own, or there was none."""
        rest = self._unread.lstrip()
        if not rest:
            return None
        blanks = self._unread[: len(self._unread) - len(rest)]
        name = self._find_name(rest)
        if "\n" not in blanks or not (name or self._may_be_name(rest)):
            return self._give_up()
        if not name:
            return None
        self._held, self._unread = self._held + blanks, rest
        self._begin_call(name)
        return ""

    def _begin_call(self, name: str) -> None:
        self._name, self._braces, self._state = name, _Braces(), _State.ARGUMENTS
        head = len(name) + 1
        self._held, self._unread = self._held + self._unread[:head], self._unread[head:]
        self._begin = len(self._held)

    def _give_up(self) -> str:
        """What was held is no call: its first line is text, the rest is looked at again."""
        line, newline, rest = self._held.partition("\n")
        self._held, self._unread, self._calls = "", rest + self._unread, []
        self._state = _State.LINE_START
        return line + newline

    def _find_name(self, text: str) -> str:
        """The tool whose name is the whole first line, before an opening brace."""
        line, newline, rest = text.partition("\n")
        return line if newline and line in self._names and rest.startswith("{") else ""

    def _may_be_name(self, text: str) -> bool:
        return any(f"{name}\n{{".startswith(text) for name in self._names)


class _Braces:
    """Counts braces outside of strings, to find where a JSON object ends.

    Attributes:
        is_broken: this can be no JSON, whatever follows. Seen as soon as may be: what is held of a
            broken call is read again, and a model may write thousands of them.
    """

    def __init__(self) -> None:
        self.is_broken = False
        self._depth = 0
        self._is_string = False
        self._is_escaped = False

    def find_end(self, text: str) -> int | None:
        """Go on with new text; the place after the brace that closes the first one."""
        for place, character in enumerate(text):
            if self._is_string:
                self._read_string(character)
            elif character == '"':
                self._is_string = True
            elif character == "{":
                self._depth += 1
            elif character == "}":
                self._depth -= 1
                if not self._depth:
                    return place + 1
            elif character not in _OUTSIDE:
                self.is_broken = True
            if self.is_broken:
                return None
        return None

    def _read_string(self, character: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif character == "\\":
            self._is_escaped = True
        elif character == '"':
            self._is_string = False
        elif character < " ":
            self.is_broken = True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, parse_constant=_refuse_constant), dict)
    except (ValueError, RecursionError):
        return False
