"""A pool whose threads each process one run of rows, with PyTorch limited to one thread per run.

The methods compute column by column, in steps too short to share. On two cores, one of them used by
another process, threads that waited for each other at every step were ten times slower.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from glm_runtime.graph.machine import count_usable_cores

T = TypeVar("T")
R = TypeVar("R")


class RowPool:
    """Threads that each compute alone; a GPU has one thread."""

    def __init__(self, device: str) -> None:
        self._threads = count_usable_cores() if device == "cpu" else 1

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield results in the order of the items; only a few items are in memory at a time."""
        waiting: deque[Future[R]] = deque()
        with ThreadPoolExecutor(self._threads, initializer=self._start_thread) as pool:
            try:
                for item in items:
                    waiting.append(pool.submit(_infer, function, item))
                    if len(waiting) > self._threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _start_thread(self) -> None:
        if self._threads > 1:
            torch.set_num_threads(1)


def _infer(function: Callable[[T], R], item: T) -> R:
    """Call the function in inference mode, which PyTorch sets for each thread separately."""
    with torch.inference_mode():
        return function(item)


@contextmanager
def restored_threads() -> Iterator[None]:
    """Restore PyTorch's number of threads, since `set_num_threads` also affects later threads."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
