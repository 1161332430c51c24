"""Blocks as columns, for the methods that try many scales.

Such a method holds a piece of a weight as [B, M]: M blocks of B inputs each. Scales and zero points
are [M] and are broadcast without copies. Sums over B always add in the same order, however the
weight was cut. Read `codes.py` before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from glm_quantize.codes import SMALLEST_SCALE, FloatArray, QuantizedRows
from glm_quantize.scheme import Scheme

_Array = TypeVar("_Array", FloatArray, npt.NDArray[np.float64])

# With a quarter of this, two threads are no faster than one, since they wait for the interpreter
# lock between short calls. With four times this, a piece no longer fits a core's caches, and the
# search is 20 % slower.
_PIECE_WEIGHTS = 1 << 18


@dataclass
class BestBlocks:
    """The best scale and zero point found so far for each of M blocks.

    Attributes:
        errors: [M] float32, the error to minimise; infinite before the first `offer`.
        scales: [M] float32.
        zero_points: [M] float32.
    """

    errors: FloatArray
    scales: FloatArray
    zero_points: FloatArray

    @classmethod
    def start(cls, rows: QuantizedRows) -> "BestBlocks":
        """Start from quantized blocks, whose errors are not known yet."""
        scales, zero_points = block_parameters(rows)
        return cls(np.full_like(scales, np.inf), scales.copy(), zero_points.copy())

    def offer(self, errors: FloatArray, scales: FloatArray, zero_points: FloatArray) -> None:
        """Keep the offered values of each block with a smaller error; ignore NaN and denormals."""
        is_better = (errors < self.errors) & (np.abs(scales) >= SMALLEST_SCALE)
        np.copyto(self.errors, errors, where=is_better)
        np.copyto(self.scales, scales, where=is_better)
        np.copyto(self.zero_points, zero_points, where=is_better)


class BlockRounder:
    """Rounds the same blocks with different scales, in buffers that are allocated once.

    Attributes:
        weights: [B, M] float32.
        max_code: largest code.
        codes: [B, M] codes of the last `round`, whole numbers in float32. Callers may overwrite it.
        residuals: [B, M] rounding errors of the last `round` in units of the block's scale:
            weight / scale + zero_point - code. Callers may overwrite it.
    """

    def __init__(self, weights: FloatArray, max_code: int) -> None:
        self.weights = weights
        self.max_code = max_code
        self.codes = np.empty_like(weights)
        self.residuals = np.empty_like(weights)

    def round(self, scales: FloatArray, zero_points: FloatArray) -> None:
        """Round to the nearest codes.

        Args:
            scales: [M], positive or negative; zero or a denormal may give NaN.
            zero_points: [M], whole numbers or fractions.
        """
        np.multiply(self.weights, np.float32(1) / scales, out=self.residuals)
        np.add(self.residuals, zero_points, out=self.residuals)
        np.rint(self.residuals, out=self.codes)
        np.clip(self.codes, 0, self.max_code, out=self.codes)
        np.subtract(self.residuals, self.codes, out=self.residuals)

    def finish(self, best: BestBlocks, scheme: Scheme) -> QuantizedRows:
        """Return rows [M, B] with the best scales and zero points, which must be whole numbers."""
        self.round(best.scales, best.zero_points)
        codes = np.ascontiguousarray(self.codes.astype(np.uint8).T)
        zero_points = None if scheme.is_symmetric else best.zero_points.astype(np.uint8)[:, None]
        return QuantizedRows(scheme, codes, best.scales[:, None], zero_points)


def split_blocks(weight: FloatArray, scheme: Scheme) -> Iterator[tuple[int, FloatArray]]:
    """Cut a weight [N, C] into pieces of whole blocks.

    Returns:
        The index of the first block of each piece, and its blocks [M, B].

    Raises:
        SchemeError: C is not a multiple of the block size.
    """
    scheme.count_blocks(weight.shape[1])
    blocked = weight.reshape(-1, scheme.block_size)
    step = _PIECE_WEIGHTS // scheme.block_size
    for start in range(0, len(blocked), step):
        yield start, blocked[start : start + step]


def join_blocks(pieces: Sequence[QuantizedRows], rows: int) -> QuantizedRows:
    """Join quantized pieces of `split_blocks` to rows."""
    scheme = pieces[0].scheme
    codes = np.concatenate([piece.codes for piece in pieces]).reshape(rows, -1)
    scales = np.concatenate([piece.scales for piece in pieces]).reshape(rows, -1)
    if scheme.is_symmetric:
        return QuantizedRows(scheme, codes, scales, None)
    zero_points = [piece.zero_points for piece in pieces if piece.zero_points is not None]
    return QuantizedRows(scheme, codes, scales, np.concatenate(zero_points).reshape(rows, -1))


def block_parameters(rows: QuantizedRows) -> tuple[FloatArray, FloatArray]:
    """Return scales [M] and zero points [M] as float32, also those of a symmetric scheme."""
    scales = rows.scales.reshape(-1)
    if rows.zero_points is None:
        return scales, np.full_like(scales, rows.scheme.default_zero_point)
    return scales, rows.zero_points.reshape(-1).astype(np.float32)


def choose_blocks(
    is_first: npt.NDArray[np.bool_], first: QuantizedRows, second: QuantizedRows
) -> QuantizedRows:
    """Choose each row of [M, B] from `first` where `is_first` [M] is true, else from `second`."""
    column = is_first[:, None]
    codes = np.where(column, first.codes, second.codes)
    scales = np.where(column, first.scales, second.scales)
    if first.zero_points is None or second.zero_points is None:
        return QuantizedRows(first.scheme, codes, scales, None)
    zero_points = np.where(column, first.zero_points, second.zero_points)
    return QuantizedRows(first.scheme, codes, scales, zero_points)


def sum_inputs(terms: _Array) -> _Array:
    """Add [B, M] along B in pairs, so that the order of the sum depends on B alone.

    Overwrites `terms` and returns a view of its first row.
    """
    half = len(terms)
    while half > 1:
        half //= 2
        first, second = terms[:half], terms[half : 2 * half]
        np.add(first, second, out=first)
    total: _Array = terms[0]
    return total
