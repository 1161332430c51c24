"""What a dialect of tool calls tells the parser: where a call begins, and how to read it.

Read `tool_calls.py` for the parser, and `choice.py` for how the dialect of a template is found.
"""

from dataclasses import dataclass
from typing import Protocol

FENCE = "```"
BLANKS = " \t"
SPACES = " \t\r\n"


@dataclass(frozen=True)
class CallHead:
    """The text before the body of a call.

    Attributes:
        name: name of the declared tool; empty if the text is not the head of a call.
        length: number of characters before the body.
        has_fence: whether a code fence opens before the body.
    """

    name: str = ""
    length: int = 0
    has_fence: bool = False


NO_HEAD = CallHead()


class CallBody(Protocol):
    """Reads the body of one call while it arrives.

    Attributes:
        arguments: parts of the arguments as JSON text, as far as they are read.
        is_certain: whether the text so far is a call rather than a text.
        is_broken: whether the text cannot be a call. It is set as early as possible, because the
            text of a broken call is read again, and a model may write thousands of them.
    """

    arguments: list[str]
    is_certain: bool
    is_broken: bool

    def read(self, text: str) -> int | None:
        """Take new text; return how many characters of it end the body, `None` if it goes on."""

    def end(self) -> bool:
        """Return whether the body is complete where its text ends.

        If it is not, add the text that `arguments` leaves out to them as it is.
        """


class CallDialect(Protocol):
    """One format of tool calls, with the declared tools."""

    @property
    def mark(self) -> str:
        """Text with which a call may begin inside a line; empty if calls begin lines."""

    @property
    def mark_text(self) -> str:
        """How the mark is shown where it begins no call; a line end if it ends the line."""

    @property
    def endings(self) -> tuple[str, ...]:
        """Texts with which a complete call may end; empty if any text may end one."""

    def read_head(self, text: str, *, is_first: bool) -> CallHead | None:
        """Read the head of a call; `None` if more text is needed to know.

        Args:
            text: text from the start of a line, or from a mark on.
            is_first: whether the text is the beginning of the answer.
        """

    def start_body(self, name: str) -> CallBody:
        """Start to read the body of a call of a tool."""


def skip(text: str, place: int, characters: str) -> int:
    """Return the next place whose character is not one of `characters`."""
    while place < len(text) and text[place] in characters:
        place += 1
    return place


def match_one(text: str, place: int, wanted: tuple[str, ...]) -> str | None:
    """Return which of `wanted` stands at a place; "" for none, `None` if more text is needed."""
    for one in wanted:
        if text.startswith(one, place):
            return one
    rest = text[place:]
    return None if any(one.startswith(rest) for one in wanted) else ""


def count_held(text: str, mark: str) -> int:
    """Return the length of the longest end of a text with which the mark may begin."""
    lengths = range(min(len(mark) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(mark[:length])), 0)
