"""Tokens of one answer to its parts: reasoning, text and tool calls.

Read `stream_decoder.py`, `thinking.py`, `stop_strings.py` and `tool_calls.py` for the steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from glm_runtime.text.dialects.all_tools import TURN
from glm_runtime.text.dialects.dialect import CallDialect
from glm_runtime.text.dialects.tagged import TAGS
from glm_runtime.text.stop_strings import StopStrings
from glm_runtime.text.thinking import CLOSING, ThinkingSplitter
from glm_runtime.text.tokenizer import Tokenizer
from glm_runtime.text.tool_calls import ToolCall, ToolCallDelta, ToolCallParser

# The model writes this token between two tool calls.
TURN_NAME = "<|assistant|>"


@dataclass(frozen=True)
class AnswerForm:
    """The parts that an answer may have.

    Attributes:
        is_chat: whether reasoning is separated from the answer; otherwise all is text.
        is_thinking: whether the prompt ends inside the reasoning.
        keeps_blanks: whether blank lines before the answer are part of it.
        dialect: how the model calls the declared tools; `None` if there are none.
        streams_calls: whether calls arrive while they are written; see `ToolCallParser`.
        is_single: whether the answer ends where a second call begins.
        num_calls: number of tool calls in the conversation so far, from which ids go on.
    """

    is_chat: bool = False
    is_thinking: bool = False
    keeps_blanks: bool = False
    dialect: CallDialect | None = None
    streams_calls: bool = False
    is_single: bool = False
    num_calls: int = 0


PLAIN_TEXT = AnswerForm()


@dataclass(frozen=True)
class AnswerPart:
    """The parts of an answer that one token completes, and whether it belongs to the reasoning."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_deltas: tuple[ToolCallDelta, ...] = ()
    is_reasoning: bool = False


class AnswerReader:
    """Turns the tokens of one answer, in order, into its parts."""

    def __init__(self, tokenizer: Tokenizer, form: AnswerForm, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stream = tokenizer.stream()
        self._splitter = None
        if form.is_chat:
            self._splitter = ThinkingSplitter(
                is_open=form.is_thinking, keeps_blanks=form.keeps_blanks
            )
        self._closing = f"\n{CLOSING}" + ("" if form.keeps_blanks else "\n\n")
        self._stop_strings = StopStrings(stop)
        self._parser = ToolCallParser(
            form.dialect,
            is_eager=form.streams_calls,
            is_single=form.is_single,
            num_calls=form.num_calls,
        )
        self._marks = _find_marks(tokenizer, form.dialect)
        self._thinking_tokens = 0

    @property
    def stop_string(self) -> str | None:
        """The stop string that has appeared."""
        return self._stop_strings.found

    @property
    def has_ended(self) -> bool:
        """Whether a second call began where only one is allowed."""
        return self._parser.has_ended

    @property
    def is_thinking(self) -> bool:
        """Whether the next token belongs to the reasoning."""
        return self._splitter is not None and self._splitter.is_thinking

    def must_close_thinking(self, limit: int) -> bool:
        """Return whether the reasoning has `limit` tokens and ends at a complete character."""
        return self.is_thinking and self._thinking_tokens >= limit and self._stream.is_complete

    def close_thinking(self) -> list[int]:
        """Return the tokens that end the reasoning."""
        return self._tokenizer.encode(self._closing)

    def add(self, token: int) -> AnswerPart:
        """Take one token; return the parts that it completes."""
        is_reasoning = self.is_thinking
        self._thinking_tokens += is_reasoning
        mark = self._marks.get(token)
        reasoning, text = self._split(self._stream.add(token) if mark is None else mark)
        text = self._parser.add(self._stop_strings.add(text))
        return AnswerPart(text, reasoning, (), self._parser.take_deltas(), is_reasoning)

    def finish(self) -> AnswerPart:
        """Return the parts that were held back; nothing after a stop string."""
        reasoning, text = "", ""
        if self.stop_string is None:
            reasoning, text = self._split(self._stream.flush(), is_last=True)
            text = self._stop_strings.add(text) + self._stop_strings.flush()
        text = self._parser.add(text)
        rest, calls = self._parser.finish()
        return AnswerPart(text + rest, reasoning, calls, self._parser.take_deltas())

    def _split(self, text: str, *, is_last: bool = False) -> tuple[str, str]:
        if self._splitter is None:
            return "", text
        reasoning, answer = self._splitter.add(text)
        if is_last:
            more_reasoning, more = self._splitter.flush()
            return reasoning + more_reasoning, answer + more
        return reasoning, answer


def _find_marks(tokenizer: Tokenizer, dialect: CallDialect | None) -> dict[int, str]:
    """Return the text of special tokens that belong to calls."""
    if dialect is None:
        return {}
    texts = {tag: tag for tag in TAGS if dialect.mark in TAGS}
    texts[TURN_NAME] = TURN if dialect.mark == TURN else "\n"
    found = {tokenizer.find_id(name): text for name, text in texts.items()}
    return {id_: text for id_, text in found.items() if id_ is not None}
