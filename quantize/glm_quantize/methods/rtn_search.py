"""Round to nearest with a search for the scale and zero point of least squared error in each block.

Every block tries a grid of clipped ranges. Each try rounds, and then fits the scale to the codes by
least squares. The best try is refined in the same way. The error may be weighted by the mean square
of each input over the calibration tokens. Read `rtn.py` and `blocks.py` before.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np

from glm_quantize.blocks import (
    BestBlocks,
    BlockRounder,
    choose_blocks,
    join_blocks,
    split_blocks,
    sum_inputs,
)
from glm_quantize.codes import DoubleArray, FloatArray, QuantizedRows, dequantize
from glm_quantize.errors import QuantizationError
from glm_quantize.methods.rtn import round_to_nearest
from glm_quantize.scheme import Scheme

# Tried ranges, as ratios of the block's extreme values. Symmetric blocks try each ratio with both
# conventions and both signs; asymmetric blocks try each pair of ratios at the two ends. Ratios
# above 1 shift the grid of values, which helps short blocks. The ratios were chosen on normal and
# Student t weights, with and without input weighting.
_SYMMETRIC_RATIOS = {
    2: (1.1, 1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.4, 0.3, 0.25),
    4: (1.1, 1.05, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5),
    8: (1.1, 1.05, 1.02, 1.0, 0.98),
}
_ASYMMETRIC_RATIOS = {
    2: (1.1, 1.0, 0.85, 0.7, 0.55, 0.4, 0.25),
    4: (1.25, 1.1, 1.0, 0.9, 0.8, 0.7, 0.55),
    8: (1.1, 1.05, 1.0),
}
# Refinement steps: the zero point is moved by this number, then the scale is fitted again.
_OFFSETS_SYMMETRIC = (0, 0)
_OFFSETS_ASYMMETRIC = (0, -1, 1, 0, -1, 1)


def search_scales(
    weight: FloatArray, scheme: Scheme, importance: FloatArray | None = None
) -> QuantizedRows:
    """Quantize every block with the scale and zero point that minimize the weighted squared error.

    Args:
        weight: [N, C] float32, finite; C is a multiple of `scheme.block_size`.
        scheme: bits per code, block size, symmetric or not.
        importance: [C] float32, mean square of each input over the calibration tokens. None, or
            zeros in a whole block, gives all inputs the same weight.

    Returns:
        Codes, scales and, if asymmetric, zero points. In no block is the sum of
        importance * (weight - dequantized)^2 above that of `round_to_nearest`.

    Raises:
        SchemeError: C is not a multiple of the block size.
        QuantizationError: the weight holds NaN or Inf, a block's range overflows float32, or the
            importance is not [C], or is negative, NaN or Inf somewhere.

    Source: GGML's `make_qx_quants` also fits the scale to the codes by least squares. Of the two
    symmetric conventions, max/8 makes the extreme value exact with one sign of the scale, and
    max/7.5 leaves it half a step outside the range with either sign.
    """
    blocks = scheme.count_blocks(weight.shape[1])
    shares = _share_blocks(importance, weight.shape[1], blocks)
    pieces = []
    for start, piece in split_blocks(weight, scheme):
        of_piece = shares[np.arange(start, start + len(piece)) % blocks]
        pieces.append(_search_piece(piece, np.ascontiguousarray(of_piece.T), scheme))
    return join_blocks(pieces, len(weight))


def _share_blocks(importance: FloatArray | None, inputs: int, blocks: int) -> DoubleArray:
    """Reshape the importance [C] to [blocks, B] and divide each block by its largest value."""
    if importance is None:
        return np.ones((blocks, inputs // blocks))
    if importance.shape != (inputs,):
        raise QuantizationError(
            f"the importance is {list(importance.shape)}, but the weight's rows have {inputs} "
            "inputs; calibrate with the same model."
        )
    if not (np.isfinite(importance) & (importance >= 0)).all():
        raise QuantizationError(
            "the importance holds negative values, NaN or Inf; it must be a mean of squares: "
            "calibrate again."
        )
    blocked = importance.astype(np.float64).reshape(blocks, -1)
    largest = blocked.max(axis=1, keepdims=True)
    return np.where(largest > 0, blocked / np.where(largest > 0, largest, 1), 1)


def _search_piece(piece: FloatArray, shares: DoubleArray, scheme: Scheme) -> QuantizedRows:
    """Quantize blocks [M, B], weighted by shares [B, M], to rows of one block each."""
    plain = round_to_nearest(piece, scheme)
    search = _Search(np.ascontiguousarray(piece.T), shares.astype(np.float32), plain)
    # If all codes are zero there is no scale to fit, and huge blocks overflow. The error of such a
    # try is NaN, which is never better.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        for scales, zero_points in _candidates(search.rounder.weights, scheme):
            search.try_scales(scales, zero_points)
        for offset in _OFFSETS_SYMMETRIC if scheme.is_symmetric else _OFFSETS_ASYMMETRIC:
            zero_points = np.clip(search.best.zero_points + offset, 0, scheme.max_code)
            search.try_scales(search.best.scales, zero_points)
        found = search.rounder.finish(search.best, scheme)
        is_better = _measure(piece, shares, found) < _measure(piece, shares, plain)
    return choose_blocks(is_better, found, plain)


def _candidates(weights: FloatArray, scheme: Scheme) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield the scales [M] and zero points [M] to try."""
    low, high = weights.min(axis=0), weights.max(axis=0)
    if scheme.is_symmetric:
        extreme = np.maximum(-low, high)
        zero_points = np.full_like(extreme, scheme.default_zero_point)
        steps = (scheme.default_zero_point, scheme.default_zero_point - 0.5)
        for ratio, step, sign in product(_SYMMETRIC_RATIOS[scheme.bits], steps, (1, -1)):
            yield extreme * np.float32(sign * ratio / step), zero_points
        return
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    ratios = _ASYMMETRIC_RATIOS[scheme.bits]
    for low_ratio, high_ratio in product(ratios, ratios):
        below = low * np.float32(low_ratio / scheme.max_code)
        scales = high * np.float32(high_ratio / scheme.max_code) - below
        yield scales, np.clip(np.rint(-below * scheme.max_code / scales), 0, scheme.max_code)


class _Search:
    """Tries scales on blocks [B, M] and keeps the best of each block."""

    def __init__(self, weights: FloatArray, importance: FloatArray, plain: QuantizedRows) -> None:
        self.rounder = BlockRounder(weights, plain.scheme.max_code)
        self.best = BestBlocks.start(plain)
        self._importance = importance
        self._weighted = np.empty_like(weights)

    def try_scales(self, scales: FloatArray, zero_points: FloatArray) -> None:
        """Round with these scales, fit the scales to the codes, and offer the result.

        Let q = code - zero_point and r = weight / scale - q. In units of the scale, the error
        sum importance (r - shift q)^2 is least at shift = sum importance r q / sum importance q^2.
        The least error is sum importance r^2 - shift sum importance r q.
        """
        self.rounder.round(scales, zero_points)
        codes, residuals, weighted = self.rounder.codes, self.rounder.residuals, self._weighted
        np.subtract(codes, zero_points, out=codes)
        np.multiply(self._importance, residuals, out=weighted)
        squares = sum_inputs(np.multiply(weighted, residuals, out=residuals))
        products = sum_inputs(np.multiply(weighted, codes, out=weighted))
        np.multiply(codes, codes, out=codes)
        powers = sum_inputs(np.multiply(codes, self._importance, out=codes))
        shift = products / powers
        errors = np.abs(scales) * np.sqrt(np.maximum(squares - shift * products, 0))
        self.best.offer(errors, scales + scales * shift, zero_points)


def _measure(piece: FloatArray, shares: DoubleArray, rows: QuantizedRows) -> DoubleArray:
    """Return the weighted squared errors [M] of rows [M, B], as a kernel dequantizes them."""
    errors = np.subtract(piece.T, dequantize(rows).T, dtype=np.float64, order="C")
    errors *= errors
    errors *= shares
    return sum_inputs(errors)
