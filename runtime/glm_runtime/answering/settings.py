"""What a caller may ask of one answer, and the pieces it comes in."""

from dataclasses import dataclass, field
from typing import Literal

from glm_runtime.errors import SamplingError
from glm_runtime.sampling.logprobs import TokenLogprobs
from glm_runtime.sampling.settings import SamplingSettings, require_texts
from glm_runtime.sampling.structured import Grammar
from glm_runtime.text.stop_strings import StopStrings
from glm_runtime.text.tool_calls import ToolCall

FinishReason = Literal["stop", "length", "stop_string", "tool_calls"]


@dataclass(frozen=True)
class GenerationSettings:
    """How to choose tokens and when to stop.

    Attributes:
        sampling: how to choose.
        max_new_tokens: at most so many tokens, thinking included; `None` goes on until the context
            is full.
        stop: strings that end the answer; they are not part of it. Thinking may hold them.
        max_thinking_tokens: thinking longer than this is closed, and the answer begins.
        is_eos_ignored: never choose an end-of-sequence token; the answer ends by length.
        grammar: what the answer must be; `None` leaves it free.
        is_speculative: guess ahead and check several tokens in one run; the same answer, sooner
            where it repeats the prompt or itself.
        top_logprobs: `None` measures none; n also reports the n likeliest tokens of each place.

    Raises:
        SamplingError: a value is outside its range.
    """

    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    max_thinking_tokens: int | None = None
    is_eos_ignored: bool = False
    top_logprobs: int | None = None
    is_speculative: bool = False
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise SamplingError(
                f"max_new_tokens is {self.max_new_tokens} where 1 or more is expected; "
                "leave it out to go on until the model ends its answer."
            )
        if self.max_thinking_tokens is not None and self.max_thinking_tokens < 0:
            raise SamplingError(
                f"max_thinking_tokens is {self.max_thinking_tokens} where 0 or more is expected; "
                "leave it out to let the model think as long as it likes."
            )
        if self.top_logprobs is not None and self.top_logprobs < 0:
            raise SamplingError(
                f"top_logprobs is {self.top_logprobs} where 0 or more is expected; "
                "0 measures the chosen token alone."
            )
        require_texts(self.stop, "stop")
        StopStrings(self.stop)


@dataclass(frozen=True)
class Piece:
    """One generated token and the text that became complete with it.

    Attributes:
        text: of the answer; often empty: the token is special, or a character or stop string is
            unfinished, or the model thinks.
        token_id: the token; an end-of-sequence token is reported too, with its finish reason.
        finish_reason: set on the last piece only: `stop` the model ended its answer, `length` the
            limit or the context is full, `stop_string` one of the stop strings appeared,
            `tool_calls` it ended with calls.
        reasoning: text of the thinking before the answer.
        tool_calls: all of them, on the last piece.
        logprobs: how likely the model thought the token, if that was asked for.
    """

    text: str
    token_id: int
    finish_reason: FinishReason | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: TokenLogprobs | None = None
