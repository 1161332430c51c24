"""Finds tool calls in an answer while it arrives.

Models write calls in the dialects of `dialects/`. Most have no special token for a call. Therefore
text is a call only if it names a declared tool, is complete, stands outside of code fences, and is
followed by nothing except other calls.

Whether this holds is known at the end of the answer alone. An eager parser decides earlier, so that
arguments can be sent while they arrive: text is a call as soon as its head and the beginning of its
arguments are there. Such a call stays one. If it turns out to be broken, the rest of the answer
belongs to its arguments; text after a complete call is text.
"""

from dataclasses import dataclass
from enum import Enum, auto

from glm_runtime.text.dialects.dialect import FENCE, CallBody, CallDialect, CallHead, count_held


@dataclass(frozen=True)
class ToolCall:
    """A tool call of the model.

    Attributes:
        name: name of a declared tool.
        arguments: JSON object, as the model wrote it where the model writes JSON. Of an eager
            parser it may be incomplete, if the model did not complete the call.
        id: id of the call, such as `call_0`; it differs from those of the conversation's other
            calls.
    """

    name: str
    arguments: str
    id: str = "call_0"


@dataclass(frozen=True)
class ToolCallDelta:
    """A part of a tool call.

    The first part of each call has its name and no arguments. The arguments of all parts of a call
    are the arguments of its `ToolCall`.

    Attributes:
        index: number of the call in its answer.
        id: id of the call.
        name: name of the tool in the first part of a call, and otherwise empty.
        arguments: further characters of the arguments.
    """

    index: int
    id: str
    name: str
    arguments: str


class _State(Enum):
    LINE_START = auto()  # a call may begin here
    LINE = auto()  # inside a line of text
    BODY = auto()  # after the head of a call
    AFTER_CALL = auto()  # white space, another call or the end may come
    BROKEN = auto()  # the rest belongs to a call that cannot be taken back
    ENDED = auto()  # the only call that is allowed is complete, and another one began


class ToolCallParser:
    """Passes text through, without the calls in it.

    The result does not depend on how the text is divided into pieces.
    """

    def __init__(
        self,
        dialect: CallDialect | None,
        *,
        is_eager: bool = False,
        is_single: bool = False,
        num_calls: int = 0,
    ) -> None:
        """Start an answer.

        Args:
            dialect: how calls are written; `None` if all is text.
            is_eager: whether text is a call as soon as its arguments begin.
            is_single: whether the answer ends where a second call begins.
            num_calls: number of calls in the conversation so far, from which ids go on.
        """
        self._dialect = dialect
        self._is_eager = is_eager
        self._is_single = is_single
        self._num_calls = num_calls
        self._state = _State.LINE_START
        self._is_first = True  # nothing was passed through
        self._is_fenced = False
        self._line = ""  # the beginning of the current line
        self._held = ""  # text from the first possible call on
        self._unread = ""
        self._name = ""
        self._call_begin = 0  # where the last call begins in the held text
        self._is_fence_open = False  # a fence before the body is not closed yet
        self._body: CallBody
        self._is_certain = False  # the last call cannot be taken back
        self._num_sent = 0  # parts of its arguments that deltas have
        self._calls: list[ToolCall] = []
        self._deltas: list[ToolCallDelta] = []

    @property
    def has_ended(self) -> bool:
        """Whether the answer ends here, because a second call began where one is allowed."""
        return self._state is _State.ENDED

    def add(self, text: str) -> str:
        """Take new text; return the text that cannot be part of a call."""
        if self._dialect is None:
            return text
        self._unread += text
        return _show(self._advance(self._dialect), self._dialect)

    def take_deltas(self) -> tuple[ToolCallDelta, ...]:
        """Return the parts of calls since the last time."""
        deltas, self._deltas = self._deltas, []
        return tuple(deltas)

    def finish(self) -> tuple[str, tuple[ToolCall, ...]]:
        """Return the text that was held back and the calls, at the end of the answer."""
        if self._dialect is None:
            return "", ()
        shown = "" if self._may_end_call(self._dialect) else self._drop_calls()
        while self._state in (_State.BODY, _State.AFTER_CALL):
            if self._state is _State.BODY and (self._body.end() or self._is_certain):
                self._end_call()
            elif self._state is _State.AFTER_CALL and self._is_blank(self._dialect):
                self._unread, self._state = "", _State.LINE
            else:
                shown += self._give_up(self._dialect) + self._advance(self._dialect)
        if self._state is _State.BROKEN:
            self._end_call()
        for index, call in () if self._is_eager else enumerate(self._calls):
            self._deltas.append(ToolCallDelta(index, call.id, call.name, ""))
            self._deltas.append(ToolCallDelta(index, call.id, "", call.arguments))
        return _show(shown + self._unread, self._dialect), tuple(self._calls)

    def _is_blank(self, dialect: CallDialect) -> bool:
        return not _show(self._unread, dialect).strip()

    def _may_end_call(self, dialect: CallDialect) -> bool:
        """Return False if the held text cannot be a call, since another end is missing."""
        if not self._held or not dialect.endings:
            return True
        return (self._held + self._unread).rstrip().endswith(dialect.endings)

    def _drop_calls(self) -> str:
        text = self._held + self._unread
        self._held, self._unread, self._state = "", "", _State.LINE
        self._calls = self._calls if self._is_eager else []
        return text

    def _advance(self, dialect: CallDialect) -> str:
        shown = ""
        while self._unread and (step := self._step(dialect)) is not None:
            shown += step
        return shown

    def _step(self, dialect: CallDialect) -> str | None:
        """Advance by one state; return text, or `None` if more input is needed."""
        if self._state is _State.LINE_START:
            return self._start_line(dialect)
        if self._state is _State.LINE:
            return self._take_line(dialect)
        if self._state is _State.BODY:
            return self._take_body(dialect)
        if self._state is _State.AFTER_CALL:
            return self._follow_call(dialect)
        if self._state is _State.ENDED:
            self._unread = ""
            return None
        self._body.arguments.append(self._unread)
        self._unread = ""
        self._send()
        return None

    def _start_line(self, dialect: CallDialect) -> str | None:
        is_mark = bool(dialect.mark) and self._unread.startswith(dialect.mark)
        if is_mark and dialect.mark_text == "\n":
            self._is_fenced = False
        if not self._is_fenced:
            head = dialect.read_head(self._unread, is_first=self._is_first)
            if head is None:
                return None
            if head.name:
                self._begin_call(head)
                return ""
        self._state = _State.LINE
        return self._pass(dialect, dialect.mark if is_mark else "")

    def _take_line(self, dialect: CallDialect) -> str | None:
        line, newline, _ = self._unread.partition("\n")
        place = self._find_mark(dialect, line)
        if place is None:
            self._state = _State.LINE_START if newline else _State.LINE
            return self._pass(dialect, line + newline)
        if self._unread.startswith(dialect.mark, place):
            self._state = _State.LINE_START
        elif not place:
            return None
        return self._pass(dialect, line[:place])

    def _find_mark(self, dialect: CallDialect, line: str) -> int | None:
        """Return where a mark, or what may be the beginning of one, stands in the unread line."""
        if not dialect.mark:
            return None
        place = line.find(dialect.mark)
        if place < 0 and len(line) == len(self._unread):
            place = len(line) - count_held(line, dialect.mark)
        if not 0 <= place < len(line):
            return None
        is_fence = self._is_fenced or _is_fence(self._line + line[:place])
        return None if is_fence and dialect.mark_text != "\n" else place

    def _take_body(self, dialect: CallDialect) -> str | None:
        end = self._body.read(self._unread)
        is_broken = self._body.is_broken
        length = len(self._unread) if end is None or is_broken else end
        self._held, self._unread = self._held + self._unread[:length], self._unread[length:]
        if self._is_eager and self._body.is_certain:
            self._send()
        if is_broken and not self._is_certain:
            return self._give_up(dialect)
        if is_broken:
            self._body.end()
            self._state = _State.BROKEN
            self._send()
        elif end is not None:
            self._end_call()
        return ""

    def _follow_call(self, dialect: CallDialect) -> str | None:
        """Expect another call on a new line; otherwise the text before was not a call."""
        if self._is_blank(dialect):
            return None
        rest = self._unread.lstrip()
        if self._is_fence_open:
            return self._close_fence(dialect, rest)
        blanks, mark = self._unread[: len(self._unread) - len(rest)], dialect.mark
        is_marked = bool(mark) and (rest.startswith(mark) or mark.startswith(rest))
        head = dialect.read_head(rest, is_first=False)
        if not (is_marked or "\n" in blanks) or (head is not None and not head.name):
            return self._give_up(dialect)
        if head is None:
            return None
        self._held, self._unread = self._held + blanks, rest
        self._begin_call(head)
        return ""

    def _close_fence(self, dialect: CallDialect, rest: str) -> str | None:
        if not rest.startswith(FENCE):
            return None if FENCE.startswith(rest) else self._give_up(dialect)
        end = len(self._unread) - len(rest) + len(FENCE)
        if not self._is_certain:
            self._held += self._unread[:end]
        self._unread, self._is_fence_open = self._unread[end:], False
        return ""

    def _begin_call(self, head: CallHead) -> None:
        assert self._dialect is not None
        if self._is_single and self._calls:
            self._state, self._held, self._unread = _State.ENDED, "", ""
            return
        self._name, self._is_fence_open = head.name, head.has_fence
        self._body, self._state = self._dialect.start_body(head.name), _State.BODY
        self._is_certain, self._num_sent = False, 0
        self._call_begin = len(self._held)
        self._held += self._unread[: head.length]
        self._unread = self._unread[head.length :]
        if self._is_eager and self._body.is_certain:
            self._send()

    def _send(self) -> None:
        """Add what is new in a call that cannot be taken back to the deltas."""
        index = len(self._calls)
        id_ = f"call_{self._num_calls + index}"
        if not self._is_certain:
            self._is_certain = True
            self._deltas.append(ToolCallDelta(index, id_, self._name, ""))
        self._held = ""
        new = "".join(self._body.arguments[self._num_sent :])
        self._num_sent = len(self._body.arguments)
        if new:
            self._deltas.append(ToolCallDelta(index, id_, "", new))

    def _end_call(self) -> None:
        if self._is_certain:
            self._send()
        id_ = f"call_{self._num_calls + len(self._calls)}"
        self._calls.append(ToolCall(self._name, "".join(self._body.arguments), id_))
        self._state = _State.AFTER_CALL

    def _give_up(self, dialect: CallDialect) -> str:
        """Return held text that is no call, and read the rest again.

        If text follows a call, none of the held calls is one, because only calls may follow a call.
        If the last call is broken, another call may begin after its mark or its first line.
        """
        if self._is_certain:  # the text goes on after the call
            self._is_fenced, self._is_fence_open = self._is_fence_open, False
            self._is_certain, self._state, self._line = False, _State.LINE, self._name
            return ""
        end, begin, mark = len(self._held), self._call_begin, dialect.mark
        if self._state is _State.BODY:
            end = self._held.find("\n", begin) + 1 or end
            if mark and self._held.startswith(mark, begin):
                end = begin + len(mark)
        self._unread, released = self._held + self._unread, self._held[:end]
        self._held, self._is_fence_open = "", False
        self._calls = self._calls if self._is_eager else []
        self._pass(dialect, released)
        self._state = _State.LINE if self._line else _State.LINE_START
        return released

    def _pass(self, dialect: CallDialect, text: str) -> str:
        """Take text that is no call, and follow its lines and fences."""
        self._unread = self._unread[len(text) :]
        self._is_first = self._is_first and not text
        if dialect.mark and dialect.mark_text == "\n" and dialect.mark in text:
            self._is_fenced, self._line = False, ""
        last = text.rpartition(dialect.mark)[2] if dialect.mark_text == "\n" else text
        *lines, line = (self._line + last).split("\n")
        for one in lines:
            self._is_fenced ^= _is_fence(one)
        self._line = line.lstrip()[: len(FENCE)] or line[:1]
        return text


def _show(text: str, dialect: CallDialect) -> str:
    return text.replace(dialect.mark, dialect.mark_text) if dialect.mark else text


def _is_fence(line: str) -> bool:
    return line.lstrip().startswith(FENCE)
