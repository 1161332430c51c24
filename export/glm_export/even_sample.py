"""Evenly spaced samples."""

import numpy as np

from glm_runtime.arrays import TokenArray


def choose_evenly(length: int, count: int) -> TokenArray:
    """Return the indices of at most `count` of `length` items, evenly spaced from the first."""
    count = min(length, count)
    chosen: TokenArray = np.arange(count, dtype=np.int64) * length // max(count, 1)
    return chosen
