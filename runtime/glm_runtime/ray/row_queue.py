"""Which worker gets which rows: runs of neighbours, which share prefixes, and few rows at the end.

It knows workers by numbers, and neither Ray nor models.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence

_RUN_WAVES = 8  # rows of a run, in numbers of rows that a worker answers at once
# A row is tried with others, then alone; after so many lost processes it has an error.
TRIES_WITH_OTHERS = 3
TRIES = 6


class RowQueue:
    """Positions of rows that have no answer.

    Attributes:
        num_held: number of rows that are with workers.
    """

    def __init__(self, positions: Sequence[int], rows: int) -> None:
        """Take positions in the order of common prefixes.

        Args:
            positions: the positions.
            rows: number of rows that a worker answers at the same time.
        """
        self._waiting = deque(positions)
        self._rows = rows
        self._runs: dict[int, deque[int]] = {}  # by worker
        self._held: dict[int, set[int]] = {}  # by worker
        self._alone: deque[int] = deque()
        self._tries: Counter[int] = Counter()
        # Counted, since a thousand workers would be summed up for each row.
        self._num_left = len(self._waiting)
        self.num_held = 0

    def __len__(self) -> int:
        """Return the number of rows that no worker has."""
        return self._num_left - self.num_held

    def take(self, worker: int, num_workers: int) -> list[int]:
        """Return the rows that a worker gets now.

        A worker has twice as many as it answers at the same time, so that it never waits; near the
        end the rest is shared out evenly.
        """
        held = self._held.setdefault(worker, set())
        if any(self._tries[one] >= TRIES_WITH_OTHERS for one in held):
            return []
        if self._alone and not held:
            held.add(self._alone[0])
            self.num_held += 1
            return [self._alone.popleft()]
        wanted = min(2 * self._rows, max(1, -(-self._num_left // num_workers))) - len(held)
        taken: list[int] = []
        while len(taken) < wanted:
            run = self._find_run(worker, num_workers)
            if not run:
                break
            taken.append(run.popleft())
        held.update(taken)
        self.num_held += len(taken)
        return taken

    def settle(self, worker: int, position: int) -> bool:
        """Note that a row has its answer; return False if the worker did not have it."""
        held = self._held.get(worker, set())
        if position not in held:
            return False
        held.remove(position)
        self.num_held -= 1
        self._num_left -= 1
        return True

    def lose(self, worker: int) -> list[int]:
        """Take back the rows of a worker that ended; return those that are given up."""
        held = sorted(self._held.pop(worker, ()))
        self.num_held -= len(held)
        run = self._runs.pop(worker, deque())
        given_up: list[int] = []
        again: list[int] = []
        for position in held:
            self._tries[position] += 1
            if self._tries[position] >= TRIES:
                given_up.append(position)
                self._num_left -= 1
            elif self._tries[position] >= TRIES_WITH_OTHERS:
                self._alone.append(position)
            else:
                again.append(position)
        self._return((*again, *run))
        return given_up

    def _return(self, positions: Iterable[int]) -> None:
        self._waiting.extendleft(reversed(tuple(positions)))

    def _find_run(self, worker: int, num_workers: int) -> deque[int]:
        """Return the worker's run; a new one, or half of the longest of the others, if it ended."""
        run = self._runs.setdefault(worker, deque())
        if run:
            return run
        if self._waiting:
            size = min(_RUN_WAVES * self._rows, len(self._waiting) // (2 * num_workers))
            run.extend(self._waiting.popleft() for _ in range(max(1, size)))
            return run
        longest = max(self._runs.values(), key=len)
        for _ in range(-(-len(longest) // 2)):
            run.appendleft(longest.pop())
        return run
