"""Logits to one token: penalties, temperature, top-k, top-p, min-p and draw, as in transformers.

No step sorts the whole vocabulary: candidates are narrowed down first. This file knows nothing
about text or graphs. Read `settings.py` for the settings.
"""

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glm_runtime.arrays import FloatArray, TokenArray
from glm_runtime.errors import GenerationError
from glm_runtime.sampling.penalties import Penalties
from glm_runtime.sampling.settings import SamplingSettings

Mask = Callable[[npt.NDArray[np.float32]], None]

_GROUP = 64  # values per group in `select_top`; 32 to 128 are equally fast at 150,000 tokens
_FIRST_NUCLEUS = 256  # tokens tried first for top-p; most nuclei are smaller


@dataclass(frozen=True)
class Candidates:
    """Tokens that may be drawn.

    Attributes:
        ids: token ids [n].
        weights: probabilities [n] up to a common factor; the largest is about 1.
    """

    ids: TokenArray
    weights: npt.NDArray[np.float64]


class Sampler:
    """Chooses the tokens of one answer, one after another."""

    def __init__(
        self,
        settings: SamplingSettings,
        tokenizer_vocab_size: int,
        prompt_ids: Sequence[int],
        breaker_ids: Set[int] = frozenset(),
    ) -> None:
        """Start an answer.

        Args:
            settings: settings of the sampler.
            tokenizer_vocab_size: number of ids that may be chosen; higher ids are padding.
            prompt_ids: the tokens of the prompt, which penalties take into account.
            breaker_ids: ids of DRY's sequence breakers.

        Raises:
            SamplingError: a bias names an id that is no token.
        """
        self._settings = settings
        self._vocab_size = tokenizer_vocab_size
        self._random = np.random.Generator(np.random.PCG64(settings.seed))
        self._penalties = Penalties(settings, tokenizer_vocab_size, prompt_ids, breaker_ids)

    @property
    def has_penalties(self) -> bool:
        """Whether a bias or a penalty changes the scores."""
        return self._settings.has_penalties

    def choose(self, logits: FloatArray, mask: Mask | None = None) -> int:
        """Choose the next token.

        Args:
            logits: [V] float32 or float16, V >= tokenizer_vocab_size; not changed.
            mask: function that sets the scores of forbidden tokens to -inf in place.

        Raises:
            GenerationError: a logit is NaN, or none is finite.
        """
        scores = self._penalties.apply(logits[: self._vocab_size])
        if mask is not None:
            scores = scores.astype(np.float32)
            mask(scores)
        if self._settings.is_greedy:
            token = find_largest(scores)
        else:
            candidates = find_candidates(scores, self._settings)
            token = int(candidates.ids[draw(candidates.weights, self._random.random())])
        self._penalties.add(token)
        return token

    def accept(self, token: int) -> None:
        """Count a token that was chosen elsewhere."""
        self._penalties.add(token)


def find_largest(scores: FloatArray) -> int:
    """Return the index of the largest score, the first of equals.

    Raises:
        GenerationError: a score is NaN, or all are -inf.
    """
    if scores.dtype == np.float16:
        # numpy compares float16 one by one (1 ms at 150,000). As int16 they have the same order if
        # the largest is positive. A NaN with its sign bit set is then overlooked, but overflow
        # fills whole rows with NaN, so that none is positive.
        bits = scores.view(np.int16)
        index = int(bits.argmax())
        if bits[index] <= 0:
            index = int(scores.argmax())
    else:
        index = int(scores.argmax())  # NaN counts as the largest
    require_finite(float(scores[index]))
    return index


def require_finite(logit: float) -> None:
    """Refuse a best logit that is not finite.

    Raises:
        GenerationError: the logit is NaN or infinite.
    """
    if not math.isfinite(logit):
        raise GenerationError(
            f"the model gave {logit} as its best logit where a finite number is expected; "
            "check the folder with `glm-run doctor`, and export a folder in float16 again with "
            "`--dtype fp32`."
        )


def find_candidates(scores: FloatArray, settings: SamplingSettings) -> Candidates:
    """Apply temperature, top-k, top-p and min-p.

    Args:
        scores: [V] float32 or float16, after the penalties.
        settings: settings of the sampler, with a temperature above 0.

    Raises:
        GenerationError: a score is NaN, or all are -inf.
    """
    scores = scores.astype(np.float32, copy=False)
    best = scores[find_largest(scores)]
    ids: TokenArray | None = None  # None means all: to make 1 MB of ids would be the slowest part
    if 0 < settings.top_k < scores.size:
        ids = select_top(scores, settings.top_k)
        scores = scores[ids]
    temperature = np.float32(max(settings.temperature, 1e-30))  # below that float32 may read 0
    with np.errstate(over="ignore"):  # a tiny temperature: exp(-inf) = 0, as it should
        weights = np.exp((scores - best) / temperature)
    if settings.top_p < 1:
        kept = select_nucleus(weights, settings.top_p)
        ids, weights = kept if ids is None else ids[kept], weights[kept]
    if settings.min_p > 0:
        kept = np.flatnonzero(weights >= settings.min_p)  # the best weighs exp(0) = 1
        ids, weights = kept if ids is None else ids[kept], weights[kept]
    return Candidates(np.arange(weights.size) if ids is None else ids, weights.astype(np.float64))


def select_top(values: FloatArray, count: int) -> TokenArray:
    """Return the indices of the `count` largest values and of all values equal to the smallest.

    The values are split into groups. At least `count` values reach the count-th largest group
    maximum, so only the few values that reach it are compared exactly.
    """
    num_groups = values.size // _GROUP
    if num_groups < 2 * count:
        last = np.partition(values, values.size - count)[values.size - count]
        return np.flatnonzero(values >= last)
    # A group is a column, so that numpy compares whole rows at once (10 times as fast).
    maxima = values[: num_groups * _GROUP].reshape(_GROUP, num_groups).max(axis=0)
    floor = np.partition(maxima, num_groups - count)[num_groups - count]
    candidates = np.flatnonzero(values >= floor)
    remaining = values[candidates]
    last = np.partition(remaining, remaining.size - count)[remaining.size - count]
    top: TokenArray = candidates[remaining >= last]
    return top


def select_nucleus(weights: FloatArray, top_p: float) -> TokenArray:
    """Return the indices of the fewest weights that sum to the share `top_p`, largest first."""
    target = top_p * float(weights.sum(dtype=np.float64))
    count = min(_FIRST_NUCLEUS, weights.size)
    while True:
        top = select_top(weights, count)
        top = top[np.argsort(-weights[top], kind="stable")]
        reached = np.cumsum(weights[top], dtype=np.float64)
        if reached[-1] >= target or top.size == weights.size:
            return top[: int(np.searchsorted(reached, target)) + 1]
        count = min(count * 8, weights.size)


def draw(weights: npt.NDArray[np.float64], uniform: float) -> int:
    """Return an index that is distributed as `weights`, for a uniform number in [0, 1)."""
    reached = np.cumsum(weights)
    index = int(np.searchsorted(reached, uniform * reached[-1], side="right"))
    return min(index, weights.size - 1)
