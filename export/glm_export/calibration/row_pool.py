"""Runs of rows side by side: one thread of torch for each, instead of all threads for each step.

Methods go column by column, in steps too short to be shared: on two cores of which another process
took one, threads that waited for each other at every step were ten times slower than this.
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
    """Threads that each compute alone; one on another device than the CPU."""

    def __init__(self, device: str) -> None:
        self._threads = count_usable_cores() if device == "cpu" else 1

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results in the order of the items, of which only a few are held at a time."""
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
    """Inference mode belongs to a thread, so each turns it on."""
    with torch.inference_mode():
        return function(item)


@contextmanager
def restored_threads() -> Iterator[None]:
    """`set_num_threads` in a pool reaches threads started later, too: put the number back."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
