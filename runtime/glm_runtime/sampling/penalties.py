"""Scores of tokens changed by what was said before: biases, penalties, and DRY.

Applied to logits before temperature, in this order: bias, repetition, presence and frequency, DRY.
Read `settings.py` for what each setting means.
"""

from collections.abc import Sequence, Set

import numpy as np
import numpy.typing as npt

from glm_runtime.arrays import FloatArray, TokenArray
from glm_runtime.errors import SamplingError
from glm_runtime.sampling.settings import DrySettings, SamplingSettings

# Beyond the allowed length a repeat of so many tokens weighs no more: 1.75 ** 50 is beyond any
# logit already.
_LONGEST_EXCESS = 50


class Penalties:
    """What one answer's settings change of the scores, given the tokens so far."""

    def __init__(
        self,
        settings: SamplingSettings,
        vocab_size: int,
        prompt_ids: Sequence[int],
        breaker_ids: Set[int] = frozenset(),
    ) -> None:
        """Start an answer.

        Args:
            settings: how to choose.
            vocab_size: ids that may be chosen are below it.
            prompt_ids: the tokens so far.
            breaker_ids: tokens that no repeat reaches across, for DRY.

        Raises:
            SamplingError: a bias names an id that is no token.
        """
        self._settings = settings
        self._history = _History(prompt_ids)
        self._breaker_ids = breaker_ids
        self._bias_ids = np.array([id_ for id_, _ in settings.logit_bias], np.int64)
        self._biases = np.array([bias for _, bias in settings.logit_bias], np.float32)
        wrong = self._bias_ids[self._bias_ids >= vocab_size]
        if wrong.size:
            raise SamplingError(
                f"logit_bias names the id {wrong[0]} where ids below {vocab_size} are expected; "
                "take ids of this folder's tokenizer."
            )
        self._is_active = settings.has_penalties
        self._needs_history = self._is_active and settings.has_history

    def apply(self, scores: FloatArray) -> FloatArray:
        """Change scores [V]; the given array stays as it is."""
        if not self._is_active:
            return scores
        settings, history = self._settings, self._history
        scores = scores.astype(np.float32)
        np.add.at(scores, self._bias_ids, self._biases)
        if settings.repetition_penalty != 1:
            seen = scores[history.seen]
            penalty = settings.repetition_penalty  # arXiv:1909.05858, section 4.1
            scores[history.seen] = np.where(seen < 0, seen * penalty, seen / penalty)
        if settings.presence_penalty or settings.frequency_penalty:
            counts = settings.frequency_penalty * history.counts
            scores[history.answered] -= (settings.presence_penalty + counts).astype(np.float32)
        if settings.dry is not None:
            ids, penalties = measure_repeats(history.tokens, settings.dry, self._breaker_ids)
            scores[ids] -= penalties
        return scores

    def add(self, token: int) -> None:
        """Remember a token of the answer."""
        if self._needs_history:
            self._history.add(token)


def measure_repeats(
    tokens: TokenArray, settings: DrySettings, breaker_ids: Set[int] = frozenset()
) -> tuple[TokenArray, npt.NDArray[np.float32]]:
    """Find the tokens that would go on repeating what was said before.

    Args:
        tokens: [T], all so far.
        settings: of DRY.
        breaker_ids: tokens that no repeat reaches across.

    Returns:
        ids [n], and for each the penalty multiplier * base ** (length - allowed length), length
        being that of the longest run that ends the tokens and stands before the id elsewhere.

    Source: p-e-w, text-generation-webui pull request 5677. As there, breakers themselves are never
    made less likely.
    """
    none = np.empty(0, np.int64), np.empty(0, np.float32)
    if not tokens.size or int(tokens[-1]) in breaker_ids:
        return none
    ends = np.flatnonzero(tokens[:-1] == tokens[-1])
    lengths = np.ones(ends.size, np.int64)
    alive = np.arange(ends.size)
    for back in range(1, min(settings.allowed_length + _LONGEST_EXCESS, tokens.size)):
        token = tokens[-1 - back]
        alive = alive[ends[alive] >= back]
        if not alive.size or int(token) in breaker_ids:
            break
        alive = alive[tokens[ends[alive] - back] == token]
        lengths[alive] += 1
    is_long = lengths >= settings.allowed_length
    is_long &= ~np.isin(tokens[ends + 1], list(breaker_ids))  # a breaker ends the repeat by itself
    following, places = np.unique(tokens[ends[is_long] + 1], return_inverse=True)
    longest = np.zeros(following.size, np.int64)
    np.maximum.at(longest, places, lengths[is_long])
    penalties = settings.multiplier * settings.base ** (longest - settings.allowed_length)
    return following, penalties.astype(np.float32)


class _History:
    """Tokens so far, and how often each is part of the answer."""

    def __init__(self, prompt_ids: Sequence[int]) -> None:
        self._ids = np.array(prompt_ids, np.int64)
        self._length = self._ids.size
        self.seen = np.unique(self._ids)
        self.answered: TokenArray = np.empty(0, np.int64)
        self.counts: TokenArray = np.empty(0, np.int64)
        self._place: dict[int, int] = {}

    @property
    def tokens(self) -> TokenArray:
        return self._ids[: self._length]

    def add(self, token: int) -> None:
        if self._length == self._ids.size:
            self._ids = np.concatenate([self._ids, np.empty(self._length + 256, np.int64)])
        self._ids[self._length] = token
        self._length += 1
        if token in self._place:
            self.counts[self._place[token]] += 1
            return
        self._place[token] = self.counts.size
        self.answered = np.append(self.answered, token)
        self.counts = np.append(self.counts, 1)
        if token not in self.seen:
            self.seen = np.append(self.seen, token)
