"""Requests that wait for memory, in the order of arrival, and who may pass whom.

A request that needs much memory would stop all smaller ones behind it until enough rows have ended.
So a request that fits may pass those that do not, but each of them only a few times: then all
behind it wait, rows end, and it fits.
"""

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from glm_runtime.answering.generation import AnswerWriter
from glm_runtime.arrays import FloatArray
from glm_runtime.sampling.logprobs import TokenLogprobs, measure_logprobs

_RESERVED_TOKENS = 256  # tokens of an answer for which memory is reserved before it starts
# As many as usually run at the same time, so that waiting becomes about twice as long at most.
MOST_PASSES = 8
_Plan = TypeVar("_Plan")


@dataclass(eq=False)
class Answer:
    """A checked request, on its way to an answer.

    Attributes:
        writer: chooses the tokens.
        tokens: the prompt, then the tokens of the answer.
        ticket: its number, which tells the order of arrival.
        has_started: whether its first event has been told.
        num_passes: number of times that a later request was admitted before it.
        scores: log-probabilities of the prompt's tokens from the second one on, as far as it has
            been read; `None` if nobody wants them (any more).
        num_top: number of most likely tokens to report with each of them.
    """

    writer: AnswerWriter
    tokens: list[int]
    ticket: int = -1
    has_started: bool = False
    num_passes: int = 0
    scores: list[TokenLogprobs] | None = None
    num_top: int = 0

    def __post_init__(self) -> None:
        self.reserve()

    def reserve(self) -> None:
        """Reserve memory for the tokens so far and some more."""
        # The last token needs no place in the cache, since the graph never reads it.
        self._reserved = len(self.tokens) + min(self.writer.remaining - 1, _RESERVED_TOKENS)

    @property
    def needed(self) -> int:
        """Number of tokens that its row should have memory for."""
        return max(self._reserved, len(self.tokens))

    def score(self, start: int, logits: FloatArray) -> None:
        """Add log-probabilities, by the logits [K, V] of the prompt's tokens from `start` on."""
        if self.scores is None:
            return
        # A row that gave up its memory may read tokens again that have been scored before.
        first = len(self.scores)
        following = self.tokens[first + 1 : start + len(logits) + 1]
        # All logits count, the padding of the vocabulary too; see `scoring.py`.
        for row, token in zip(logits[first - start :], following, strict=False):
            self.scores.append(measure_logprobs(row, token, self.num_top))

    def take_scores(self) -> tuple[TokenLogprobs, ...]:
        """Return the log-probabilities of the prompt, the first time only."""
        scores, self.scores = self.scores or [], None
        return tuple(scores)


class RequestQueue:
    """Requests without a row, by their tickets."""

    def __init__(self) -> None:
        self._answers: list[Answer] = []

    def __len__(self) -> int:
        return len(self._answers)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self._answers)

    def add(self, answer: Answer) -> None:
        """Put a request in its place by its ticket, also one that had a row before."""
        bisect.insort(self._answers, answer, key=lambda other: other.ticket)

    def choose(self, plan: Callable[[Answer], _Plan | None]) -> tuple[Answer, _Plan] | None:
        """Return the first request for which there is a plan, unless one before was passed often.

        Args:
            plan: returns what is needed to admit a request; `None` if it must wait.
        """
        for answer in self._answers:
            found = plan(answer)
            if found is not None:
                return answer, found
            if answer.num_passes >= MOST_PASSES:
                return None
        return None

    def admit(self, answer: Answer) -> None:
        """Remove a request that gets a row; those before it were passed once more."""
        place = self._answers.index(answer)
        for passed in self._answers[:place]:
            passed.num_passes += 1
        del self._answers[place]

    def remove(self, answer: Answer) -> None:
        """Remove a request that nobody wants any more."""
        self._answers.remove(answer)

    def clear(self) -> None:
        """Remove all requests."""
        self._answers.clear()
