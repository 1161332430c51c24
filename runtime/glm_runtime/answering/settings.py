"""The settings of one answer, and the pieces in which it arrives."""

from dataclasses import dataclass, field
from typing import Literal

from glm_runtime.sampling.logprobs import TokenLogprobs
from glm_runtime.sampling.option import Option, check_options, declare
from glm_runtime.sampling.settings import SamplingSettings, require_texts
from glm_runtime.sampling.structured import Grammar
from glm_runtime.text.stop_strings import StopStrings
from glm_runtime.text.tool_calls import ToolCall

FinishReason = Literal["stop", "length", "stop_string", "tool_calls"]


MAX_NEW_TOKENS = Option(
    "Maximum number of tokens to generate.",
    minimum=1,
    advice="leave it out to generate until the model ends its answer",
)


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of one answer: how to choose tokens and when to stop.

    Attributes:
        sampling: settings of the sampler.
        max_new_tokens: maximum number of tokens, reasoning included; `None` goes on until the
            context is full.
        stop: strings that end the answer and are not part of it; reasoning may contain them.
        max_thinking_tokens: maximum number of reasoning tokens, after which the answer begins.
        is_eos_ignored: whether end-of-sequence tokens are never chosen.
        top_logprobs: number of most likely tokens to report at each position, besides the chosen
            one; `None` reports no log-probabilities.
        is_speculative: whether to use speculative decoding, which gives the same answer.
        grammar: grammar that the answer must follow; `None` leaves it free.

    Raises:
        SamplingError: a value is outside its range.
    """

    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    max_new_tokens: int | None = declare(None, MAX_NEW_TOKENS)
    stop: tuple[str, ...] = declare(
        (), Option("Stop before this text appears in the answer.  May be repeated.")
    )
    max_thinking_tokens: int | None = declare(
        None,
        Option(
            "Limit reasoning to N tokens.",
            minimum=0,
            advice="leave it out for reasoning of any length",
        ),
    )
    is_eos_ignored: bool = declare(
        False,
        Option(
            "Never choose an end-of-sequence token; generate until a limit is reached.",
            flag="ignore-eos",
        ),
    )
    top_logprobs: int | None = declare(
        None,
        Option(
            "Report log-probabilities with --json: each token's, and those of the N most likely.",
            minimum=0,
            flag="logprobs",
            advice="0 reports the chosen token alone",
        ),
    )
    is_speculative: bool = declare(
        False,
        Option(
            "Use speculative decoding by prompt lookup: the same answer, faster where text "
            "repeats.",
            flag="speculate",
        ),
    )
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        check_options(self)
        require_texts(self.stop, "stop")
        StopStrings(self.stop)


@dataclass(frozen=True)
class Piece:
    """One generated token and the text that became complete with it.

    Attributes:
        text: text of the answer; empty while a character or a possible stop string is incomplete,
            for special tokens, and for reasoning.
        token_id: id of the token; the end-of-sequence token is reported too.
        finish_reason: reason why the answer ended, on the last piece only: `stop` (the model ended
            it), `length` (a limit is reached or the context is full), `stop_string`, or
            `tool_calls` (it ended with tool calls).
        reasoning: text of the reasoning before the answer.
        tool_calls: all tool calls, on the last piece only.
        logprobs: log-probabilities of the token, if `top_logprobs` is set.
    """

    text: str
    token_id: int
    finish_reason: FinishReason | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: TokenLogprobs | None = None
