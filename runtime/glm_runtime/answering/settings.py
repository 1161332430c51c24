"""The settings of one answer, and the pieces in which it arrives."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from glm_runtime.errors import FolderError, SamplingError
from glm_runtime.sampling.logprobs import TokenLogprobs
from glm_runtime.sampling.option import Option, check_options, declare
from glm_runtime.sampling.settings import (
    GENERATION_CONFIG_NAME,
    SamplingSettings,
    read_generation_config,
    read_sampling_defaults,
    require_texts,
)
from glm_runtime.sampling.structured import Grammar
from glm_runtime.text.stop_strings import StopStrings
from glm_runtime.text.tool_calls import ToolCall, ToolCallDelta

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
        max_new_tokens: maximum number of tokens, reasoning included; `None` takes the limit that
            the folder recommends. Without one the answer goes on until the context is full.
        stop: strings that end the answer and are not part of it; reasoning may contain them.
        max_thinking_tokens: maximum number of reasoning tokens, after which the answer begins.
        is_eos_ignored: whether end-of-sequence tokens are never chosen.
        top_logprobs: number of most likely tokens to report at each position, besides the chosen
            one; `None` reports no log-probabilities.
        is_speculative: whether to use speculative decoding, which gives the same answer.
        grammar: grammar that the answer must follow; `None` leaves it free.
        max_length: maximum number of tokens of prompt and answer together, as in transformers;
            without effect if `max_new_tokens` is set.

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
    max_length: int | None = declare(
        None,
        Option(
            "Limit prompt and answer together to N tokens.",
            minimum=1,
            advice="leave it out, or set max_new_tokens",
        ),
    )

    def __post_init__(self) -> None:
        check_options(self)
        require_texts(self.stop, "stop")
        StopStrings(self.stop)

    def fill(self, defaults: "GenerationSettings") -> "GenerationSettings":
        """Return these settings, with a folder's defaults for what was left out.

        Raises:
            SamplingError: a value is outside its range.
        """
        filled = dataclasses.replace(self, sampling=self.sampling.fill(defaults.sampling))
        if self.max_new_tokens is not None or self.max_length is not None:
            return filled
        limits = (defaults.max_new_tokens, defaults.max_length)
        return dataclasses.replace(filled, max_new_tokens=limits[0], max_length=limits[1])


def read_defaults(folder: Path) -> GenerationSettings:
    """Read the settings that the model's authors recommend in `generation_config.json`.

    Raises:
        FolderError: the file is missing, is not JSON, or has a value outside its range.
    """
    config = read_generation_config(folder)
    limits: dict[str, Any] = {}
    for name in ("max_new_tokens", "max_length"):
        value = config.get(name)
        if value is not None and (type(value) is not int or value < 1):
            raise FolderError(
                f"{GENERATION_CONFIG_NAME}: {name} is {value!r} where a whole number of 1 or more "
                "is expected; correct it in the checkpoint and export again."
            )
        limits[name] = value
    try:
        return GenerationSettings(read_sampling_defaults(folder), **limits)
    except SamplingError as error:
        raise FolderError(f"{GENERATION_CONFIG_NAME}: {error}") from error


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
        stop_string: the stop string that ended the answer, on the last piece only.
        tool_call_deltas: parts of tool calls. With `ChatOptions.streams_calls` they come while the
            model writes the call, otherwise on the last piece.
        is_reasoning: whether the token belongs to the reasoning or ends it.
        prompt_logprobs: log-probabilities of the prompt's tokens from the second one on, on the
            first piece only, if the request asks for them.
    """

    text: str
    token_id: int
    finish_reason: FinishReason | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: TokenLogprobs | None = None
    stop_string: str | None = None
    tool_call_deltas: tuple[ToolCallDelta, ...] = ()
    is_reasoning: bool = False
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
