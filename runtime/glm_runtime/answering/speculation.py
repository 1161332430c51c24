"""Several tokens at a time: guesses are read together with the last token, then checked.

Each place's token is chosen as it would be without guesses, from the logits that the graph gives
there, and a guess only saves a run where it is that very token. So the answer is the same, whatever
the guesses: with sampling, too, token by token for one seed.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from glm_runtime.graph.decoding import Decoder, FloatArray

# Tokens at the end of the text that must have stood before, for what followed to be guessed.
_MATCH = 3
_FIRST_GUESS, _LONGEST_GUESS = 2, 16
# What one more token costs in a run, as a share of a run of one token. Measured with 1.5 B
# parameters, int4 block 128, on a CPU: 54 ms for 1 token, 79 for 4, 114 for 8, 181 for 16.
_TOKEN_COST = 0.16
# Checks after which gains and costs are compared, and tokens without guesses when they lose.
_TRIAL = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 32, 1024


class Drafter(Protocol):
    """Guesses what comes next."""

    @property
    def cost(self) -> float:
        """Of one guessed token, as a share of a run of the model."""

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """At most `count` tokens that may follow; none where nothing is known."""


class PromptLookup:
    """Guesses that the text goes on as it did where its last tokens stood before.

    Source: Saxena 2023, "Prompt Lookup Decoding"; no second model is needed.
    """

    cost = 0.0

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], int] = {}
        self._indexed = 0

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """What followed the last tokens where they stood last; `tokens` only ever grow."""
        for end in range(max(_MATCH, self._indexed), len(tokens)):
            self._places[tuple(tokens[end - _MATCH : end])] = end
        self._indexed = len(tokens)
        place = self._places.get(tuple(tokens[-_MATCH:]))
        return [] if place is None else list(tokens[place : place + count])


@dataclass
class Pace:
    """How many tokens to guess: more while guesses come true, none while they cost too much.

    Counts, not clocks: the same answer always takes the same steps.

    Attributes:
        cost: of guessing one token, as a share of a run.
        proposed: tokens guessed so far.
        accepted: those that came true.
        checks: runs that had guesses in them.
    """

    cost: float = 0.0
    proposed: int = 0
    accepted: int = 0
    checks: int = 0
    _length: int = _FIRST_GUESS
    _pause: int = 0
    _next_pause: int = _FIRST_PAUSE
    _trial: int = 0
    _gain: float = 0.0

    def count_wanted(self) -> int:
        """How many tokens to guess for the next run."""
        if self._pause:
            self._pause -= 1
            return 0
        return self._length

    def report(self, proposed: int, accepted: int) -> None:
        """What became of a run's guesses."""
        self.proposed += proposed
        self.accepted += accepted
        self.checks += 1
        self._length = _clamp(2 * self._length if accepted == proposed else accepted + 1)
        self._trial += 1
        self._gain += accepted - proposed * (_TOKEN_COST + self.cost)
        if self._trial == _TRIAL:
            self._settle()

    def _settle(self) -> None:
        if self._gain < 0:
            self._pause = self._next_pause
            self._next_pause = min(2 * self._next_pause, _LONGEST_PAUSE)
            self._length = _FIRST_GUESS
        else:
            self._next_pause = _FIRST_PAUSE
        self._trial, self._gain = 0, 0.0


class ReadAhead:
    """Feeds chosen tokens to a decoder, guesses with them, and gives back logits one by one."""

    def __init__(
        self,
        decoder: Decoder,
        drafter: Drafter | None,
        tokens: Sequence[int],
        pace: Pace | None = None,
    ) -> None:
        """`tokens`: the prompt, which the decoder has read."""
        self._decoder = decoder
        self._drafter = drafter
        self._tokens = list(tokens) if drafter is not None else []
        self._rows: deque[FloatArray] = deque()  # logits after guesses that came true
        self._guesses: deque[int] = deque()  # read, and not yet compared with what was chosen
        self._proposed = 0
        self._pace = pace or Pace(drafter.cost if drafter is not None else 0.0)

    def settle(self, token: int) -> None:
        """Tell which token was chosen; the decoder then holds nothing else in its place."""
        self._tokens.append(token)
        if not self._guesses:
            return
        if token == self._guesses[0]:
            self._guesses.popleft()
        else:
            self._decoder.truncate(self._decoder.length - len(self._guesses))
            self._pace.report(self._proposed, self._proposed - len(self._guesses))
            self._guesses.clear()
            self._rows.clear()
            return
        if not self._guesses:
            self._pace.report(self._proposed, self._proposed)

    def advance(self, token: int, limit: int) -> FloatArray:
        """Give the logits after the settled token.

        Args:
            token: the settled one.
            limit: guesses for which there is use and room.

        Returns:
            [V], valid until the next call.
        """
        if not self._rows:
            guesses = self._propose(limit)
            rows = self._decoder.append((token, *guesses), 1 + len(guesses))
            self._rows.extend(rows)
            self._guesses.extend(guesses)
            self._proposed = len(guesses)
        return self._rows.popleft()

    def _propose(self, limit: int) -> list[int]:
        if self._drafter is None:
            return []
        count = min(self._pace.count_wanted(), limit)
        return self._drafter.propose(self._tokens, count) if count > 0 else []


def _clamp(length: int) -> int:
    return min(max(length, 1), _LONGEST_GUESS)
