"""Prompt to answer: chunked prefill, then one token at a time until the answer ends.

This file decides when an answer ends; `decoding.py` runs the graph, `sampler.py` chooses tokens,
and `answer.py` turns them into text.
"""

import dataclasses
import math
import operator
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from glm_runtime.answering.settings import FinishReason, GenerationSettings, Piece
from glm_runtime.answering.speculation import DraftBudget, Drafter, SpeculativeDecoder
from glm_runtime.arrays import FloatArray
from glm_runtime.errors import PromptError
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.decoding import Decoder, check_length
from glm_runtime.sampling.logprobs import TokenLogprobs, measure_logprobs
from glm_runtime.sampling.sampler import Sampler, require_finite
from glm_runtime.sampling.settings import SamplingSettings
from glm_runtime.sampling.structured import Grammar, GrammarMask
from glm_runtime.text.answer import PLAIN_TEXT, AnswerForm, AnswerPart, AnswerReader
from glm_runtime.text.tokenizer import Tokenizer

_RESERVED_TOKENS = 512  # tokens of an answer for which the cache reserves room at the start


@dataclass(frozen=True)
class Request:
    """A prompt and the settings of its answer.

    Attributes:
        prompt_ids: the whole prompt, checked by `check_prompt`.
        settings: settings of the answer; what they leave out is as the folder recommends.
        form: parts that the answer may have.
        drafter: proposes draft tokens for speculative decoding; `None` turns it off.
        scores_prompt: whether an `Engine` reports log-probabilities of the prompt's tokens, as many
            at each position as the settings say; the whole prompt is then read.

    Raises:
        PromptError: the prompt is no list of whole numbers.
    """

    prompt_ids: Sequence[int]
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    form: AnswerForm = PLAIN_TEXT
    drafter: Drafter | None = None
    scores_prompt: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_ids", list_ids(self.prompt_ids))


def list_ids(prompt_ids: object) -> list[int]:
    """Return token ids, which may be numpy's, as a list of Python's integers.

    Raises:
        PromptError: something else was given.
    """
    given: Any = None if isinstance(prompt_ids, str | bytes) else prompt_ids
    try:
        return [operator.index(token) for token in given]
    except TypeError as error:
        raise PromptError(
            f"the prompt is {prompt_ids!r:.80} where a text or a list of token ids is expected; "
            "for messages use Model.chat."
        ) from error


def check_prompt(prompt_ids: Sequence[int], model: ModelEntry) -> None:
    """Refuse a prompt that the model cannot read.

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


def generate(
    decoder: Decoder, writer: "AnswerWriter", request: Request, budget: DraftBudget | None = None
) -> Iterator[Piece]:
    """Answer a prompt; the decoder may have read its beginning already.

    Args:
        decoder: a decoder that holds the first `decoder.length` tokens of the prompt, but not all.
        writer: a writer made for this request.
        request: the prompt and its settings.
        budget: budget of speculative decoding, which counts the draft tokens.

    Yields:
        One piece per token; the last one has a finish reason.

    Raises:
        GenerationError: ONNX Runtime failed, or no token can be chosen.
    """
    decoder.reserve(len(request.prompt_ids) + min(writer.remaining, _RESERVED_TOKENS))
    logits = decoder.prefill(request.prompt_ids[decoder.length :])
    if decoder.chooses_greedily and writer.is_plainly_greedy and request.drafter is None:
        yield from _follow_greedily(decoder, writer, logits)
        return
    speculative = SpeculativeDecoder(decoder, request.drafter, request.prompt_ids, budget)
    while True:
        piece = writer.write(logits)
        speculative.settle(piece.token_id)
        yield piece
        if piece.finish_reason is not None:
            return
        # The last of the remaining tokens is never read by the graph.
        logits = speculative.advance(piece.token_id, writer.remaining - 1)


def _follow_greedily(
    decoder: Decoder, writer: "AnswerWriter", logits: FloatArray
) -> Iterator[Piece]:
    """Yield the same pieces as `generate`; the graph chooses, so logits stay on the device."""
    piece = writer.write(logits)
    while piece.finish_reason is None:
        yield piece
        token, logit = decoder.choose_next(piece.token_id)
        require_finite(logit)
        piece = writer.add(token)
    yield piece


class AnswerWriter:
    """Turns the logits of one answer into pieces and decides when it ends."""

    def __init__(self, tokenizer: Tokenizer, model: ModelEntry, request: Request) -> None:
        """Start an answer.

        Raises:
            PromptError: the prompt is as long as `max_length`.
            SamplingError: a bias names an id that is no token.
            GrammarError: the grammar is not valid.
            MissingDependencyError: a grammar is given and llguidance is not installed.
        """
        self._model = model
        self._settings = request.settings
        self._sampler = _make_sampler(tokenizer, model, request)
        grammar = request.settings.grammar
        form = dataclasses.replace(request.form, keeps_blanks=_keeps_blanks(grammar))
        self._reader = AnswerReader(tokenizer, form, request.settings.stop)
        self._mask = None if grammar is None else GrammarMask(grammar, tokenizer, model)
        self._forced: deque[int] = deque()
        self.remaining = count_new_tokens(request.settings, len(request.prompt_ids), model)

    @property
    def is_plainly_greedy(self) -> bool:
        """Whether every token is the most likely one, without any other setting's effect."""
        settings = self._settings
        return (
            settings.sampling.is_greedy
            and not self._sampler.has_penalties
            and settings.grammar is None
            and settings.top_logprobs is None
            and settings.max_thinking_tokens is None
        )

    def add(self, token: int) -> Piece:
        """Take a token that the graph chose; only while `is_plainly_greedy`."""
        return self._describe(token, self._reader.add(token), None)

    def write(self, logits: FloatArray) -> Piece:
        """Choose the next token from logits [V]; not to be called after a finish reason.

        Raises:
            GenerationError: a logit is NaN, none is finite, or the grammar allows no token.
        """
        self._force_tokens()
        is_free = self._reader.is_thinking or bool(self._forced)
        mask = None if is_free else self._mask
        token = self._choose(logits, mask)
        part = self._reader.add(token)
        if mask is not None:
            mask.accept(token)
        elif self._mask is not None and part.text:
            self._mask.accept_text(part.text)
        return self._describe(token, part, self._measure(logits, token))

    def _describe(self, token: int, part: AnswerPart, logprobs: TokenLogprobs | None) -> Piece:
        self.remaining -= 1
        reason = self._find_finish(token)
        piece = Piece(
            part.text,
            token,
            reasoning=part.reasoning,
            logprobs=logprobs,
            tool_call_deltas=part.tool_call_deltas,
            is_reasoning=part.is_reasoning,
        )
        if reason is None:
            return piece
        rest = self._reader.finish()
        return dataclasses.replace(
            piece,
            text=part.text + rest.text,
            finish_reason="tool_calls" if rest.tool_calls and reason == "stop" else reason,
            reasoning=part.reasoning + rest.reasoning,
            tool_calls=rest.tool_calls,
            stop_string=self._reader.stop_string if reason == "stop_string" else None,
            tool_call_deltas=part.tool_call_deltas + rest.tool_call_deltas,
        )

    def _force_tokens(self) -> None:
        """Begin to write the end of the reasoning where it reaches its limit."""
        limit = self._settings.max_thinking_tokens
        if not self._forced and limit is not None and self._reader.must_close_thinking(limit):
            self._forced.extend(self._reader.close_thinking())

    def _choose(self, logits: FloatArray, mask: GrammarMask | None) -> int:
        if not self._forced:
            return self._sampler.choose(logits, mask)
        token = self._forced.popleft()
        self._sampler.accept(token)
        return token

    def _measure(self, logits: FloatArray, token: int) -> TokenLogprobs | None:
        count = self._settings.top_logprobs
        if count is None:
            return None
        return measure_logprobs(logits[: self._model.tokenizer_vocab_size], token, count)

    def _find_finish(self, token: int) -> FinishReason | None:
        if token in self._model.eos_token_ids:
            return "stop"
        if self._reader.stop_string is not None:
            return "stop_string"
        if self._reader.has_ended or (self._mask is not None and self._mask.is_finished):
            return "stop"
        return None if self.remaining else "length"


def _keeps_blanks(grammar: Grammar | None) -> bool:
    return grammar is not None and not grammar.has_free_text


def count_new_tokens(settings: GenerationSettings, prompt_length: int, model: ModelEntry) -> int:
    """Return the largest number of tokens that an answer may have.

    Raises:
        PromptError: the prompt is as long as `max_length`.
    """
    # The last token needs no place in the cache, since the graph never reads it.
    room = model.context_length - prompt_length + 1
    if settings.max_new_tokens is not None:
        return min(settings.max_new_tokens, room)
    if settings.max_length is None:
        return room
    if settings.max_length <= prompt_length:
        raise PromptError(
            f"the prompt has {prompt_length} tokens where max_length={settings.max_length} is the "
            "limit for prompt and answer together; set max_new_tokens, or shorten the prompt."
        )
    return min(settings.max_length - prompt_length, room)


def _make_sampler(tokenizer: Tokenizer, model: ModelEntry, request: Request) -> Sampler:
    sampling = request.settings.sampling
    if request.settings.is_eos_ignored:
        ids = [id_ for id_ in model.eos_token_ids if id_ < model.tokenizer_vocab_size]
        sampling = _forbid(sampling, ids)
    breakers = sampling.dry.sequence_breakers if sampling.dry is not None else ()
    breaker_ids = tokenizer.find_tokens_with(breakers)
    return Sampler(sampling, model.tokenizer_vocab_size, request.prompt_ids, breaker_ids)


def _forbid(sampling: SamplingSettings, ids: Sequence[int]) -> SamplingSettings:
    bias = (*sampling.logit_bias, *((id_, -math.inf) for id_ in ids))
    return dataclasses.replace(sampling, logit_bias=bias)
