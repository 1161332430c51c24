"""Blocks side by side, for methods that try many scales.

Inside such a method a piece of a weight lies as [B, M]: B inputs of a block down, M blocks across.
Scales and zero points are then [M] and meet their blocks without copies, and every sum adds in the
same order, however the weight was cut. Read `codes.py` before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from glm_quantize.codes import FloatArray, QuantizedRows
from glm_quantize.scheme import Scheme

_Array = TypeVar("_Array", FloatArray, npt.NDArray[np.float64])

# With a quarter of it two threads are no faster than one, waiting for the interpreter between
# short calls; with four times as much a core's caches no longer hold a piece (20 % slower).
_PIECE_WEIGHTS = 1 << 18
# 1 / scale overflows float32 below this, and processors that flush denormals read zero.
_SMALLEST_SCALE = np.float32(np.finfo(np.float32).tiny)


@dataclass
class BestBlocks:
    """The best scale and zero point that each of M blocks has met so far.

    Attributes:
        errors: [M] float32, what is minimised; infinite before the first offer.
        scales: [M] float32.
        zero_points: [M] float32.
    """

    errors: FloatArray
    scales: FloatArray
    zero_points: FloatArray

    @classmethod
    def start(cls, rows: QuantizedRows) -> "BestBlocks":
        """From blocks quantized already, whose errors are still to be offered."""
        scales, zero_points = block_parameters(rows)
        return cls(np.full_like(scales, np.inf), scales.copy(), zero_points.copy())

    def offer(self, errors: FloatArray, scales: FloatArray, zero_points: FloatArray) -> None:
        """Take over what is better, block by block; never NaN, nor a scale that is denormal."""
        is_better = (errors < self.errors) & (np.abs(scales) >= _SMALLEST_SCALE)
        np.copyto(self.errors, errors, where=is_better)
        np.copyto(self.scales, scales, where=is_better)
        np.copyto(self.zero_points, zero_points, where=is_better)


class BlockRounder:
    """Rounds the same blocks again and again, in memory that is taken once.

    Attributes:
        weights: [B, M] float32.
        max_code: the largest code.
        codes: [B, M], the last `round`'s: whole numbers in float32. Callers may overwrite it.
        residuals: [B, M], what these codes leave, in units of the block's scale:
            weight / scale + zero_point - code. Callers may overwrite it.
    """

    def __init__(self, weights: FloatArray, max_code: int) -> None:
        self.weights = weights
        self.max_code = max_code
        self.codes = np.empty_like(weights)
        self.residuals = np.empty_like(weights)

    def round(self, scales: FloatArray, zero_points: FloatArray) -> None:
        """Find the nearest codes.

        Args:
            scales: [M], of either sign; where zero or denormal, the outcome may be NaN.
            zero_points: [M], whole or not.
        """
        np.multiply(self.weights, np.float32(1) / scales, out=self.residuals)
        np.add(self.residuals, zero_points, out=self.residuals)
        np.rint(self.residuals, out=self.codes)
        np.clip(self.codes, 0, self.max_code, out=self.codes)
        np.subtract(self.residuals, self.codes, out=self.residuals)

    def finish(self, best: BestBlocks, scheme: Scheme) -> QuantizedRows:
        """The rows [M, B] of the best scales and zero points, which must be whole by now."""
        self.round(best.scales, best.zero_points)
        codes = np.ascontiguousarray(self.codes.astype(np.uint8).T)
        zero_points = None if scheme.is_symmetric else best.zero_points.astype(np.uint8)[:, None]
        return QuantizedRows(scheme, codes, best.scales[:, None], zero_points)


def split_blocks(weight: FloatArray, scheme: Scheme) -> Iterator[tuple[int, FloatArray]]:
    """Cut [N, C] into pieces of whole blocks.

    Returns:
        For each piece the number of its first block, and the blocks, [M, B].

    Raises:
        SchemeError: C is not a multiple of the block size.
    """
    scheme.count_blocks(weight.shape[1])
    blocked = weight.reshape(-1, scheme.block_size)
    step = _PIECE_WEIGHTS // scheme.block_size
    for start in range(0, len(blocked), step):
        yield start, blocked[start : start + step]


def join_blocks(pieces: Sequence[QuantizedRows], rows: int) -> QuantizedRows:
    """The inverse of `split_blocks`, for pieces that are quantized."""
    scheme = pieces[0].scheme
    codes = np.concatenate([piece.codes for piece in pieces]).reshape(rows, -1)
    scales = np.concatenate([piece.scales for piece in pieces]).reshape(rows, -1)
    if scheme.is_symmetric:
        return QuantizedRows(scheme, codes, scales, None)
    zero_points = [piece.zero_points for piece in pieces if piece.zero_points is not None]
    return QuantizedRows(scheme, codes, scales, np.concatenate(zero_points).reshape(rows, -1))


def block_parameters(rows: QuantizedRows) -> tuple[FloatArray, FloatArray]:
    """Scales [M] and zero points [M] as float32, also those that a symmetric scheme implies."""
    scales = rows.scales.reshape(-1)
    if rows.zero_points is None:
        return scales, np.full_like(scales, rows.scheme.default_zero_point)
    return scales, rows.zero_points.reshape(-1).astype(np.float32)


def choose_blocks(
    is_first: npt.NDArray[np.bool_], first: QuantizedRows, second: QuantizedRows
) -> QuantizedRows:
    """Of two quantizations of blocks, rows [M, B], `first` where [M] `is_first`."""
    column = is_first[:, None]
    codes = np.where(column, first.codes, second.codes)
    scales = np.where(column, first.scales, second.scales)
    if first.zero_points is None or second.zero_points is None:
        return QuantizedRows(first.scheme, codes, scales, None)
    zero_points = np.where(column, first.zero_points, second.zero_points)
    return QuantizedRows(first.scheme, codes, scales, zero_points)


def sum_inputs(terms: _Array) -> _Array:
    """Add [B, M] along B, in pairs, so that the order depends on B alone.

    Overwrites `terms` and returns a view of its first row.
    """
    half = len(terms)
    while half > 1:
        half //= 2
        first, second = terms[:half], terms[half : 2 * half]
        np.add(first, second, out=first)
    total: _Array = terms[0]
    return total
