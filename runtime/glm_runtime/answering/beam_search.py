"""Beam search: finds answers whose probability is high as a whole.

Every round keeps the most likely continuations of all beams. Read `batch_decoder.py` before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glm_runtime.answering.batch_decoder import BatchDecoder
from glm_runtime.answering.generation import check_prompt
from glm_runtime.answering.settings import MAX_NEW_TOKENS
from glm_runtime.arrays import FloatArray
from glm_runtime.errors import DeviceError
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.inference import OpenGraph
from glm_runtime.sampling.option import Option, check_options, declare
from glm_runtime.sampling.sampler import require_finite


@dataclass(frozen=True)
class BeamSettings:
    """Settings of a beam search.

    Attributes:
        num_beams: number of answers that are followed side by side and returned.
        max_new_tokens: maximum length of an answer; `None` goes on until the context is full.
        length_penalty: exponent in the score log-probability / length ** length_penalty; above 0
            prefers long answers, 0 ranks by the probability alone.

    Raises:
        SamplingError: a value is outside its range.
    """

    num_beams: int = declare(
        4, Option("Run a beam search with N beams.", minimum=1, flag="beams", advice="1 is greedy")
    )
    max_new_tokens: int | None = declare(None, MAX_NEW_TOKENS)
    length_penalty: float = declare(
        1.0,
        Option(
            "Exponent of the length by which a beam search divides log-probabilities; above 0 "
            "prefers long answers.",
            minimum=-10,
            maximum=10,
            advice="1 is usual",
        ),
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Beam:
    """One answer.

    Attributes:
        token_ids: the answer's ids, with the end-of-sequence token if there is one.
        logprob: natural logarithm of the answer's probability.
        score: number that answers are ranked by; see `BeamSettings.length_penalty`.
        is_finished: whether the model ended the answer; otherwise a limit did.
    """

    token_ids: tuple[int, ...]
    logprob: float
    score: float
    is_finished: bool


def search_beams(
    graph: OpenGraph, model: ModelEntry, prompt_ids: Sequence[int], settings: BeamSettings
) -> list[Beam]:
    """Find `num_beams` answers to a prompt, the one with the highest score first.

    Raises:
        PromptError: the prompt is empty, too long, or holds an id that is no token.
        DeviceError: the model is not on the CPU.
        GenerationError: a logit is NaN, or ONNX Runtime failed.

    Source: beam search of transformers with `early_stopping=False`. It ends when no beam, at its
    present length, scores higher than the worst finished answer.
    """
    check_prompt(prompt_ids, model)
    if graph.device != "cpu":
        raise DeviceError(
            f"beam search was requested on {graph.place} but runs only on the CPU; "
            "use the device cpu."
        )
    decoder = BatchDecoder(graph, model, settings.num_beams)
    room = model.context_length - len(prompt_ids) + 1
    search = _Search(model, settings, min(settings.max_new_tokens or room, room))
    logits = decoder.add(prompt_ids)[None]
    while True:
        sources = search.extend(logits)
        if not sources:
            return search.collect()
        is_larger = len(sources) > decoder.num_rows  # a new row does not hold the prompt yet
        decoder.reorder(sources, 0 if is_larger else len(prompt_ids))
        logits = decoder.step([tokens[-1] for tokens in search.tokens])


class _Search:
    """The beams and the finished answers of one search."""

    def __init__(self, model: ModelEntry, settings: BeamSettings, limit: int) -> None:
        self._eos = set(model.eos_token_ids)
        self._vocab_size = model.tokenizer_vocab_size
        self._settings = settings
        self._limit = limit
        self._finished: list[Beam] = []
        self.tokens: list[tuple[int, ...]] = [()]
        self._logprobs = np.zeros(1)

    def extend(self, logits: FloatArray) -> list[int]:
        """Extend the beams by one token from logits [beams, V].

        Returns:
            the old beam of each new one; an empty list when the search has ended.
        """
        totals = self._logprobs[:, None] + _log_softmax(logits[:, : self._vocab_size])
        length = len(self.tokens[0]) + 1
        kept: list[tuple[int, tuple[int, ...], float]] = []
        for place, (source, token) in enumerate(self._rank(totals)):
            tokens, logprob = (*self.tokens[source], token), float(totals[source, token])
            if token not in self._eos:
                kept.append((source, tokens, logprob))
            elif place < self._settings.num_beams:
                self._finish(tokens, logprob, is_finished=True)
            if len(kept) == self._settings.num_beams:
                break
        self.tokens = [tokens for _, tokens, _ in kept]
        self._logprobs = np.array([logprob for _, _, logprob in kept])
        if length == self._limit or not kept or self._is_settled(length):
            return []
        return [source for source, _, _ in kept]

    def collect(self) -> list[Beam]:
        """Return the best answers, among them beams that a limit ended."""
        if (self.tokens and len(self.tokens[0]) == self._limit) or len(
            self._finished
        ) < self._settings.num_beams:
            for tokens, logprob in zip(self.tokens, self._logprobs.tolist(), strict=True):
                self._finish(tokens, logprob, is_finished=False)
        return self._finished

    def _rank(self, totals: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
        """Return (beam, token) of the most likely extensions, enough even if some beams end."""
        count = min((1 + len(self._eos)) * self._settings.num_beams, totals.size)
        flat = totals.ravel()
        best = np.argpartition(-flat, count - 1)[:count]
        best = best[np.lexsort((best, -flat[best]))]
        return [divmod(int(place), totals.shape[1]) for place in best]

    def _finish(self, tokens: tuple[int, ...], logprob: float, *, is_finished: bool) -> None:
        score = self._score(logprob, len(tokens))
        self._finished.append(Beam(tokens, logprob, score, is_finished))
        self._finished.sort(key=lambda beam: -beam.score)
        del self._finished[self._settings.num_beams :]

    def _score(self, logprob: float, length: int) -> float:
        return logprob / float(length**self._settings.length_penalty)

    def _is_settled(self, length: int) -> bool:
        """Return whether no beam scores higher than the worst finished answer."""
        if len(self._finished) < self._settings.num_beams:
            return False
        best = self._score(float(self._logprobs.max()), length)
        return best <= self._finished[-1].score


def _log_softmax(logits: FloatArray) -> npt.NDArray[np.float64]:
    scores = logits.astype(np.float64)
    require_finite(float(scores.max()))
    scores -= scores.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return scores
