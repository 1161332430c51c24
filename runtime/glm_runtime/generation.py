"""Prompt to answer: prefill in chunks, then one token at a time until something ends it.

The last file of the reading order. Knows what ends an answer; `decoding.py` runs the graph,
`sampler.py` chooses, `stream_decoder.py` and `stop_strings.py` make text of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from glm_runtime.decoding import Decoder, FloatArray, check_length
from glm_runtime.errors import PromptError, SamplingError
from glm_runtime.manifest import ModelEntry
from glm_runtime.sampler import Sampler
from glm_runtime.sampling import SamplingSettings
from glm_runtime.stop_strings import StopStrings
from glm_runtime.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "stop_string"]

# Bounds the memory of a long prompt; at 1.5 B parameters larger chunks are no faster on a CPU.
PREFILL_CHUNK = 512


@dataclass(frozen=True)
class Piece:
    """One generated token and the text that became complete with it.

    Attributes:
        text: often empty: the token is special, or a character or stop string is unfinished.
        token_id: the token; an end-of-sequence token is reported too, with its finish reason.
        finish_reason: set on the last piece only: `stop` the model ended its answer, `length` the
            limit or the context is full, `stop_string` one of the stop strings appeared.
    """

    text: str
    token_id: int
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class GenerationSettings:
    """How to choose tokens and when to stop.

    Attributes:
        sampling: how to choose.
        max_new_tokens: at most so many tokens; `None` goes on until the context is full.
        stop: strings that end the answer; they are not part of it.

    Raises:
        SamplingError: a value is outside its range.
    """

    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise SamplingError(
                f"max_new_tokens is {self.max_new_tokens} where 1 or more is expected; "
                "leave it out to go on until the model ends its answer."
            )
        StopStrings(self.stop)


def check_prompt(prompt_ids: Sequence[int], model: ModelEntry) -> None:
    """Refuse a prompt the model cannot take.

    Raises:
        PromptError: it is empty, longer than the context, or holds an id that is no token.
    """
    if not prompt_ids:
        raise PromptError("the prompt is empty where at least one token is expected; give a text.")
    check_length(len(prompt_ids), model)
    wrong = [token for token in prompt_ids if not 0 <= token < model.tokenizer_vocab_size]
    if wrong:
        raise PromptError(
            f"the prompt holds the id {wrong[0]} where ids below {model.tokenizer_vocab_size} are "
            "expected; encode it with this folder's tokenizer."
        )


def prefill(decoder: Decoder, tokens: Sequence[int], chunk: int = PREFILL_CHUNK) -> FloatArray:
    """Read tokens in chunks; return the logits [V] after the last one."""
    for start in range(0, len(tokens), chunk):
        logits = decoder.append(tokens[start : start + chunk])
    last: FloatArray = logits[-1]
    return last


def generate(
    decoder: Decoder,
    tokenizer: Tokenizer,
    model: ModelEntry,
    prompt_ids: Sequence[int],
    settings: GenerationSettings,
) -> Iterator[Piece]:
    """Answer a prompt, of which the decoder may have read the beginning already.

    Args:
        decoder: holds the first `decoder.length` tokens of the prompt, fewer than all.
        tokenizer: the folder's tokenizer.
        model: the folder's model entry.
        prompt_ids: the whole prompt, checked by `check_prompt`.
        settings: how to choose and when to stop.

    Yields:
        One piece per token; the last one has a finish reason.
    """
    sampler = Sampler(settings.sampling, model.tokenizer_vocab_size, prompt_ids)
    text = _AnswerText(tokenizer, settings.stop)
    # The last token of all needs no place in the cache: it is never read back.
    room = model.context_length - len(prompt_ids) + 1
    limit = min(settings.max_new_tokens or room, room)
    logits = prefill(decoder, prompt_ids[decoder.length :])
    for count in range(1, limit + 1):
        token = sampler.choose(logits)
        shown = text.add(token)
        reason = _find_finish(token, model, text, is_last=count == limit)
        if reason is not None:
            yield Piece(shown + text.flush(), token, reason)
            return
        yield Piece(shown, token)
        logits = decoder.append((token,))[-1]


class _AnswerText:
    """Tokens to text, without stop strings."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._stream = tokenizer.stream()
        self._stop_strings = StopStrings(stop)

    @property
    def is_stopped(self) -> bool:
        return self._stop_strings.is_found

    def add(self, token: int) -> str:
        return self._stop_strings.add(self._stream.add(token))

    def flush(self) -> str:
        """What was held back; nothing after a stop string."""
        if self.is_stopped:
            return ""
        return self._stop_strings.add(self._stream.flush()) + self._stop_strings.flush()


def _find_finish(
    token: int, model: ModelEntry, text: _AnswerText, *, is_last: bool
) -> FinishReason | None:
    if token in model.eos_token_ids:
        return "stop"
    if text.is_stopped:
        return "stop_string"
    return "length" if is_last else None
