"""The parts of an answer while they arrive: reasoning, text, and calls of tools.

OpenAI's responses and Anthropic's messages are lists of such parts. Each part is opened, grows and
is closed before the next one begins. Nothing here knows about a format.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from glm_runtime.answering.settings import FinishReason, Piece
from glm_runtime.sampling.logprobs import TokenLogprobs

SectionKind = Literal["reasoning", "text", "call"]


@dataclass(frozen=True)
class ScoredToken:
    """A token of a text.

    Attributes:
        id: id of the token.
        logprobs: its log-probability, and those of the most likely tokens at its place.
    """

    id: int
    logprobs: TokenLogprobs


@dataclass
class Section:
    """A part of an answer.

    Attributes:
        index: its place among the parts of the answer.
        kind: what it is.
        text: its text so far; the arguments of a call.
        tokens: tokens of a text, if log-probabilities were requested.
        id: id of a call.
        name: name of the tool that a call is for.
    """

    index: int
    kind: SectionKind
    text: str = ""
    tokens: list[ScoredToken] = field(default_factory=list)
    id: str = ""
    name: str = ""


@dataclass(frozen=True)
class Change:
    """What happened to a section.

    Attributes:
        section: the section after the change.
        step: whether it began, grew or ended.
        text: the text by which it grew.
        tokens: the tokens by which it grew, if log-probabilities were requested.
    """

    section: Section
    step: Literal["open", "grow", "close"]
    text: str = ""
    tokens: Sequence[ScoredToken] = ()


class SectionReader:
    """Turns the pieces of one answer, in order, into changes of its sections.

    Attributes:
        sections: the sections so far.
        num_tokens: number of tokens of the answer so far.
        num_reasoning: how many of them are reasoning.
        finish_reason: the reason why the answer ended; `None` before its end.
        stop_string: the stop string that ended it.
    """

    def __init__(self, eos_token_ids: Iterable[int]) -> None:
        """Start an answer.

        Args:
            eos_token_ids: tokens that end answers, and are no part of a text.
        """
        self._eos_token_ids = frozenset(eos_token_ids)
        self._is_open = False
        self._tokens: list[ScoredToken] = []  # of text that is not complete yet
        self.sections: list[Section] = []
        self.num_tokens = 0
        self.num_reasoning = 0
        self.finish_reason: FinishReason | None = None
        self.stop_string: str | None = None

    def add(self, piece: Piece) -> Iterator[Change]:
        """Take the next piece; yield what it changes."""
        self.num_tokens += 1
        self.num_reasoning += piece.is_reasoning
        if piece.reasoning:
            yield from self._grow("reasoning", piece.reasoning)
        is_said = not piece.is_reasoning and piece.token_id not in self._eos_token_ids
        if is_said and piece.logprobs is not None:
            self._tokens.append(ScoredToken(piece.token_id, piece.logprobs))
        if piece.text:
            yield from self._grow("text", piece.text)
        for delta in piece.tool_call_deltas:
            if delta.name:
                yield from self._open("call", delta.id, delta.name)
            if delta.arguments:
                yield from self._grow("call", delta.arguments)
        if piece.finish_reason is not None:
            self.finish_reason, self.stop_string = piece.finish_reason, piece.stop_string
            yield from self._close()

    def _grow(self, kind: SectionKind, text: str) -> Iterator[Change]:
        if not self._is_open or self.sections[-1].kind != kind:
            yield from self._open(kind)
        section = self.sections[-1]
        section.text += text
        tokens = self._take_tokens() if kind == "text" else []
        section.tokens += tokens
        yield Change(section, "grow", text, tokens)

    def _open(self, kind: SectionKind, id_: str = "", name: str = "") -> Iterator[Change]:
        if kind != "text":
            self._tokens.clear()  # they turned out to belong to a call or to <think>
        yield from self._close()
        self.sections.append(Section(len(self.sections), kind, id=id_, name=name))
        self._is_open = True
        yield Change(self.sections[-1], "open")

    def _close(self) -> Iterator[Change]:
        if not self._is_open:
            return
        section = self.sections[-1]
        if section.kind == "text" and (tokens := self._take_tokens()):
            section.tokens += tokens
            yield Change(section, "grow", "", tokens)
        self._is_open = False
        yield Change(section, "close")

    def _take_tokens(self) -> list[ScoredToken]:
        tokens, self._tokens = self._tokens, []
        return tokens
