"""Logit bias and penalties: scores that depend on the tokens so far.

They are applied to the logits before temperature, in this order: bias, repetition penalty, presence
and frequency penalty, DRY. Read `settings.py` for the meaning of each setting.
"""

from collections.abc import Sequence, Set

import numpy as np
import numpy.typing as npt

from glm_runtime.arrays import FloatArray, TokenArray
from glm_runtime.errors import SamplingError
from glm_runtime.sampling.settings import DrySettings, SamplingSettings

# Longer repeats get no larger penalty: 1.75 ** 50 is already larger than any logit.
_LONGEST_EXCESS = 50
_LARGEST_REPEAT_PENALTY = 1e30  # float32 holds it, so that no token is forbidden by an overflow


class Penalties:
    """Applies the bias and the penalties of one answer."""

    def __init__(
        self,
        settings: SamplingSettings,
        vocab_size: int,
        prompt_ids: Sequence[int],
        breaker_ids: Set[int] = frozenset(),
    ) -> None:
        """Start an answer.

        Args:
            settings: settings of the sampler.
            vocab_size: number of ids that may be chosen.
            prompt_ids: the tokens of the prompt.
            breaker_ids: ids of DRY's sequence breakers.

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
                "use ids of this folder's tokenizer."
            )
        self._is_active = settings.has_penalties
        self._needs_history = self._is_active and settings.has_history

    def apply(self, scores: FloatArray) -> FloatArray:
        """Return changed scores [V]; the given array is not modified."""
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
        """Count a token of the answer."""
        if self._needs_history:
            self._history.add(token)


def measure_repeats(
    tokens: TokenArray, settings: DrySettings, breaker_ids: Set[int] = frozenset()
) -> tuple[TokenArray, npt.NDArray[np.float32]]:
    """Find the tokens that would continue a repeated sequence, with their DRY penalties.

    Args:
        tokens: [T], all tokens so far.
        settings: settings of DRY.
        breaker_ids: ids of the sequence breakers.

    Returns:
        ids [n] and penalties [n]. A penalty is multiplier * base ** (length - allowed_length); the
        length is that of the longest sequence at the end of `tokens` that also precedes an earlier
        occurrence of the id.

    Source: p-e-w, text-generation-webui pull request 5677. As there, sequence breakers themselves
    get no penalty.
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
    is_long &= ~np.isin(tokens[ends + 1], list(breaker_ids))  # a breaker ends the sequence
    following, places = np.unique(tokens[ends[is_long] + 1], return_inverse=True)
    longest = np.zeros(following.size, np.int64)
    np.maximum.at(longest, places, lengths[is_long])
    penalties = settings.multiplier * settings.base ** (longest - settings.allowed_length)
    return following, np.minimum(penalties, _LARGEST_REPEAT_PENALTY).astype(np.float32)


class _History:
    """The tokens so far, and how often each occurs in the answer."""

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
