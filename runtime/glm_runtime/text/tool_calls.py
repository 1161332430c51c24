"""Finds tool calls in an answer while it arrives.

GLM-4-0414 and GLM-Z1 write the tool's name alone on a line and its arguments as a JSON object on
the next line; no special token marks the call. Text is therefore a call only if it names a declared
tool, is complete, stands outside of code fences, and is followed by nothing except other calls. As
in the models' own server, blanks around the name, blank lines before the object and a code fence
around the object are allowed. Read `call_head.py` for what stands before the object.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from glm_runtime.text.call_head import FENCE, CallHead, read_head

# Characters that JSON allows outside of strings.
_OUTSIDE = frozenset('{}[]:,"+-.0123456789eEtrufalsn \t\r\n')


@dataclass(frozen=True)
class ToolCall:
    """A tool call of the model.

    Attributes:
        name: name of a declared tool.
        arguments: JSON object, as the model wrote it.
        id: id of the call, such as `call_0`; it differs from those of the conversation's other
            calls.
    """

    name: str
    arguments: str
    id: str = "call_0"


class _State(Enum):
    LINE_START = auto()  # a call may begin here
    LINE = auto()  # inside a line of text
    ARGUMENTS = auto()  # after the name and a newline
    AFTER_CALL = auto()  # white space, another call or the end may come


class ToolCallParser:
    """Passes text through, without the calls at its end.

    The result does not depend on how the text is divided into pieces.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Start an answer; `names` are the declared tools, and without any all is text."""
        self._names = tuple(names)
        self._state = _State.LINE_START if names else _State.LINE
        self._is_fenced = False
        self._line = ""  # the current line of text so far
        self._held = ""  # text from the first possible call on
        self._unread = ""
        self._name = ""
        self._call_begin = 0  # where the last call begins in the held text
        self._is_fence_open = False  # a fence before the arguments is not closed yet
        self._braces = _BraceCounter()
        self._calls: list[ToolCall] = []

    def add(self, text: str) -> str:
        """Take new text; return the text that cannot be part of a call."""
        if not self._names:
            return text
        self._unread += text
        shown = ""
        while (step := self._step()) is not None:
            shown += step
        return shown

    def finish(self) -> tuple[str, tuple[ToolCall, ...]]:
        """Return the text that was held back and the calls, at the end of the answer."""
        shown = ""
        if not (self._held + self._unread).rstrip().endswith(("}", FENCE)):
            held, self._held = self._held + self._unread, ""
            return held, ()
        while self._held:
            if self._state is _State.AFTER_CALL and not self._unread.strip():
                return shown, tuple(self._calls)
            shown += self._give_up() + self.add("")
        return shown + self._unread, ()

    def _step(self) -> str | None:
        """Advance by one state; return text, or `None` if more input is needed."""
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
            head = read_head(self._unread, self._names)
            if head is None:
                return None
            if head.name:
                self._begin_call(head)
                return ""
        self._state, self._line = _State.LINE, ""
        return ""

    def _take_line(self) -> str | None:
        if not self._unread:
            return None
        line, newline, self._unread = self._unread.partition("\n")
        self._line += line
        if newline:
            if self._line.lstrip().startswith(FENCE):
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
        """Expect another call on a new line; otherwise the text before was not a call."""
        rest = self._unread.lstrip()
        if not rest:
            return None
        if self._is_fence_open:
            return self._close_fence(rest)
        blanks = self._unread[: len(self._unread) - len(rest)]
        head = read_head(rest, self._names)
        if "\n" not in blanks or (head is not None and not head.name):
            return self._give_up()
        if head is None:
            return None
        self._held, self._unread = self._held + blanks, rest
        self._begin_call(head)
        return ""

    def _close_fence(self, rest: str) -> str | None:
        if rest.startswith(FENCE):
            end = len(self._unread) - len(rest) + len(FENCE)
            self._held, self._unread = self._held + self._unread[:end], self._unread[end:]
            self._is_fence_open = False
            return ""
        return None if FENCE.startswith(rest) else self._give_up()

    def _begin_call(self, head: CallHead) -> None:
        self._name, self._is_fence_open = head.name, head.has_fence
        self._braces, self._state = _BraceCounter(), _State.ARGUMENTS
        self._call_begin = len(self._held)
        self._held += self._unread[: head.length]
        self._unread = self._unread[head.length :]
        self._begin = len(self._held)

    def _give_up(self) -> str:
        """Return held text that is no call, and read the rest again.

        If text follows a call, none of the held calls is one, because only calls may follow a call.
        If the last call is broken, its second line may still begin a call.
        """
        end = len(self._held)
        if self._state is _State.ARGUMENTS:
            end = self._held.find("\n", self._call_begin) + 1
        released, rest = self._held[:end], self._held[end:]
        self._held, self._unread, self._calls = "", rest + self._unread, []
        self._is_fence_open = False
        *lines, self._line = released.split("\n")
        for line in lines:
            self._is_fenced ^= line.lstrip().startswith(FENCE)
        self._state = _State.LINE if self._line else _State.LINE_START
        return released


class _BraceCounter:
    """Counts braces outside of strings, to find the end of a JSON object.

    Attributes:
        is_broken: whether the text cannot be JSON. It is set as early as possible, because the text
            of a broken call is read again, and a model may write thousands of them.
    """

    def __init__(self) -> None:
        self.is_broken = False
        self._depth = 0
        self._is_string = False
        self._is_escaped = False

    def find_end(self, text: str) -> int | None:
        """Take new text; return the position after the brace that closes the first one."""
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
