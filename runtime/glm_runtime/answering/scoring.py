"""Log-probabilities of given texts, which evaluation needs.

Many sequences are read in the order of a dictionary: each one goes on from the prefix that it
shares with the one before. So every shared prefix is read once, without a copy of the KV cache. The
logits of a position are used for all sequences that share it, and then dropped.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from glm_runtime.answering.generation import check_prompt
from glm_runtime.arrays import FloatArray
from glm_runtime.errors import PromptError
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.decoding import PREFILL_CHUNK, Decoder, check_length, count_shared

_ROWS_AT_ONCE = 16  # bounds the memory for the exponentials of one row each


@dataclass(frozen=True)
class Score:
    """How likely a continuation is after a prompt.

    Attributes:
        token_ids: the scored tokens.
        logprobs: natural logarithm of the probability of each of them.
        is_greedy: whether greedy decoding would have answered with these tokens.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    is_greedy: bool

    @property
    def total(self) -> float:
        """Natural logarithm of the probability of the whole continuation."""
        return sum(self.logprobs)


@dataclass(eq=False)
class _Sequence:
    """A prompt with its continuation.

    Attributes:
        tokens: both, in order.
        first: the position whose logits predict the first token of the continuation.
        logprobs: what is known of the continuation so far.
        is_greedy: whether all tokens so far are the most likely ones.
    """

    tokens: tuple[int, ...]
    first: int
    logprobs: list[float]
    is_greedy: bool = True

    @property
    def stop(self) -> int:
        """Number of positions that are read: the last token predicts nothing."""
        return len(self.tokens) - 1

    @property
    def score(self) -> Score:
        return Score(self.tokens[self.first + 1 :], tuple(self.logprobs), self.is_greedy)


def score_tokens(
    decoder: Decoder,
    model: ModelEntry,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> Iterator[tuple[int, Score]]:
    """Measure the log-probabilities of continuations.

    The probabilities are those of all logits of the model, the padding of the vocabulary included,
    as transformers computes them.

    Args:
        decoder: a decoder without tokens.
        model: the model's entry of the manifest.
        pairs: prompts with their continuations, each of at least one token. Both may have one token
            more than the context together, since the last token is not read.

    Yields:
        The number of a pair and its score, not in the order of the pairs.

    Raises:
        PromptError: one of a pair is empty, both are too long, or an id is no token.
        GenerationError: ONNX Runtime failed.
    """
    sequences = [_check(model, prompt, continuation) for prompt, continuation in pairs]
    order = sorted(range(len(sequences)), key=lambda index: sequences[index].tokens)
    sequences = [sequences[index] for index in order]
    reader = _Reader(decoder, model, sequences)
    for place, index in enumerate(order):
        reader.read(place)
        yield index, sequences[place].score


def _check(model: ModelEntry, prompt: Sequence[int], continuation: Sequence[int]) -> _Sequence:
    tokens = (*prompt, *continuation)
    if len(tokens) > model.context_length + 1:
        check_length(len(tokens), model)
    check_prompt(tokens[: model.context_length], model)
    check_prompt(tokens[-model.context_length :], model)
    if not prompt or not continuation:
        found = "prompt" if not prompt else "continuation"
        raise PromptError(
            f"the {found} has no token where at least one is expected; give a text, for example "
            "the special tokens at the beginning of a text as the prompt."
        )
    return _Sequence(tokens, len(prompt) - 1, [])


class _Reader:
    """Reads sequences one after another, which are sorted by their tokens."""

    def __init__(self, decoder: Decoder, model: ModelEntry, sequences: Sequence[_Sequence]) -> None:
        self._decoder = decoder
        self._num_tokens = model.tokenizer_vocab_size
        self._sequences = sequences
        pairs = itertools.pairwise(sequences)
        self._shared = [count_shared(one.tokens, other.tokens) for one, other in pairs]
        decoder.reserve(max((one.stop for one in sequences), default=0))

    def read(self, place: int) -> None:
        """Read what the sequence at a place does not share with the one before."""
        one = self._sequences[place]
        known = min(self._shared[place - 1], self._decoder.length) if place else 0
        self._decoder.truncate(known)
        for start in range(known, one.stop, PREFILL_CHUNK):
            stop = min(start + PREFILL_CHUNK, one.stop)
            wanted = list(self._list_wanted(place, start, stop))
            first = min((begin for _, begin, _ in wanted), default=stop - 1)
            logits = self._decoder.append(one.tokens[start:stop], stop - first)
            for begin in range(first, stop, _ROWS_AT_ONCE):
                self._note(wanted, begin, logits[begin - first : begin - first + _ROWS_AT_ONCE])

    def _list_wanted(
        self, place: int, start: int, stop: int
    ) -> Iterator[tuple[_Sequence, int, int]]:
        """Yield the sequences that share these positions, with those whose logits they need."""
        for other in range(place, len(self._sequences)):
            if other > place:
                stop = min(stop, self._shared[other - 1])
            if stop <= start:
                return
            one = self._sequences[other]
            begin, end = max(start, one.first), min(stop, one.stop)
            if begin < end:
                yield one, begin, end

    def _note(
        self, wanted: Sequence[tuple[_Sequence, int, int]], first: int, logits: FloatArray
    ) -> None:
        """Add the log-probabilities at the positions from `first` on, by logits [K, V]."""
        scores = logits.astype(np.float32, copy=False)
        best = scores.max(axis=1)
        # Exponentials in float32 are wrong by 1e-7 of their sum, also with 150,000 of them.
        sums = np.exp(scores - best[:, None]).sum(axis=1, dtype=np.float64)
        totals = best.astype(np.float64) + np.log(sums)
        chosen = scores[:, : self._num_tokens].argmax(axis=1)
        for one, begin, end in wanted:
            start, stop = max(begin, first), min(end, first + len(scores))
            if start >= stop:
                continue
            tokens = np.array(one.tokens[start + 1 : stop + 1])
            rows = np.arange(start - first, stop - first)
            found = scores[rows, tokens].astype(np.float64) - totals[rows]
            one.logprobs.extend(found.tolist())
            one.is_greedy &= bool((chosen[rows] == tokens).all())
