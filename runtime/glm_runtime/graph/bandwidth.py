"""Measures memory bandwidth, which bounds decoding: every token reads every weight once.

Method: 1, 2, ... threads sum a buffer of 1 GiB (far larger than any cache, smaller where memory is
short). numpy's integer sum is vectorized and releases Python's lock. The result is the best of
several passes and numbers of threads.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from glm_runtime.graph.machine import read_available_memory_bytes

_BUFFER_BYTES = 1 << 30
_PASSES = 5


def measure_read_bytes_per_second(max_threads: int, buffer_bytes: int = _BUFFER_BYTES) -> float:
    """Return the best rate with up to `max_threads` threads, in bytes per second.

    Args:
        max_threads: the largest number of threads to try.
        buffer_bytes: size of the buffer; at most a quarter of the available memory is taken.
    """
    size_bytes = min(buffer_bytes, read_available_memory_bytes() // 4)
    buffer = np.ones(max(1, size_bytes // 8), np.int64)
    return max(_measure(buffer, threads) for threads in range(1, max_threads + 1))


def _measure(buffer: np.ndarray[tuple[int], np.dtype[np.int64]], threads: int) -> float:
    parts = np.array_split(buffer, threads)
    best_seconds = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_PASSES):
            start = time.perf_counter()
            list(pool.map(np.add.reduce, parts))
            best_seconds = min(best_seconds, time.perf_counter() - start)
    return buffer.nbytes / best_seconds
