"""Half-quadratic quantization: minimize the p-norm of the error with p < 1, which allows outliers.

With codes W_q, dequantized weights W_r = (W_q - z) s and an auxiliary error W_e, alternate between

    W_e <- shrink(W - W_r, beta),  shrink(x, beta) = sign(x) max(|x| - |x|^(p-1) / beta, 0)
    z   <- mean over the block of W_q - (W - W_e) / s
    beta <- kappa beta

Source: Badri and Shaji 2023, https://mobiusml.github.io/hqq_blog/, with three differences.
Residuals are in units of s, so that scaling a weight scales its result. The kernels need whole zero
points, and z rarely moves by a half; so s is also fitted, by least squares of W - W_e, and again
after z is rounded. Each block keeps its best result, where the source stops at the first increase.
"""

import numpy as np

from glm_quantize.blocks import (
    BestBlocks,
    BlockRounder,
    block_parameters,
    join_blocks,
    split_blocks,
    sum_inputs,
)
from glm_quantize.codes import FloatArray, QuantizedRows
from glm_quantize.methods.rtn import round_to_nearest
from glm_quantize.scheme import Scheme

# The defaults of the authors' code (mobiusml/hqq, hqq/core/optimize.py).
_NORM = 0.7
_FIRST_BETA = 10.0
_KAPPA = 1.01
_ITERATIONS = 20
# Smallest residual, since the power p - 1 of zero would be infinite.
_SMALLEST_RESIDUAL = np.float32(1e-30)


def half_quadratic(weight: FloatArray, scheme: Scheme) -> QuantizedRows:
    """Quantize every block with the scale and zero point that minimize the p-norm, p = 0.7.

    Args:
        weight: [N, C] float32, finite; C is a multiple of `scheme.block_size`.
        scheme: bits per code, block size, symmetric or not.

    Returns:
        Codes, scales and, if asymmetric, zero points. In no block is the sum of
        |weight - dequantized|^p above that of `round_to_nearest`, except for float32 rounding.

    Raises:
        SchemeError: C is not a multiple of the block size.
        QuantizationError: the weight holds NaN or Inf, or a block's range overflows float32.
    """
    pieces = [_optimize_piece(piece, scheme) for _, piece in split_blocks(weight, scheme)]
    return join_blocks(pieces, len(weight))


def _optimize_piece(piece: FloatArray, scheme: Scheme) -> QuantizedRows:
    """Quantize blocks [M, B] to rows of one block each."""
    plain = round_to_nearest(piece, scheme)
    splitting = _Splitting(np.ascontiguousarray(piece.T), scheme)
    best = BestBlocks.start(plain)
    scales, zero_points = block_parameters(plain)
    # A block whose codes are all zero has no scale to fit. Its error is NaN, which is never better.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        splitting.fit_scales(best, scales, zero_points)
        if not scheme.is_symmetric:
            scales, zero_points = splitting.free_zero_points(scales, zero_points)
            zero_points = np.clip(np.rint(zero_points), 0, scheme.max_code)
            splitting.fit_scales(best, scales, zero_points)
        return splitting.rounder.finish(best, scheme)


class _Splitting:
    """Half-quadratic splitting of blocks [B, M]."""

    def __init__(self, weights: FloatArray, scheme: Scheme) -> None:
        self.rounder = BlockRounder(weights, scheme.max_code)
        self._magnitudes = np.empty_like(weights)
        self._powers = np.empty_like(weights)
        self._shrinkage = np.empty_like(weights)

    def fit_scales(self, best: BestBlocks, scales: FloatArray, zero_points: FloatArray) -> None:
        """Fit the scales in several steps with fixed zero points, and offer each step's result."""
        beta = _FIRST_BETA
        for _ in range(_ITERATIONS):
            norms = self._shrink(scales, zero_points, beta)
            best.offer(np.abs(scales) * norms ** np.float32(1 / _NORM), scales, zero_points)
            scales = self._step_scales(scales, zero_points)
            beta *= _KAPPA

    def free_zero_points(
        self, scales: FloatArray, zero_points: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Fit zero points, which may be fractions, and scales in turn."""
        beta = _FIRST_BETA
        inputs = np.float32(len(self._shrinkage))
        for _ in range(_ITERATIONS):
            self._shrink(scales, zero_points, beta)
            zero_points = zero_points - sum_inputs(self._shrinkage) / inputs
            self._shrink(scales, zero_points, beta)
            scales = self._step_scales(scales, zero_points)
            beta *= _KAPPA
        return scales, zero_points

    def _shrink(self, scales: FloatArray, zero_points: FloatArray, beta: float) -> FloatArray:
        """Round, set `_shrinkage` to x - shrink(x, beta) of the residuals x, return sums of |x|^p.

        x - shrink(x, beta) is sign(x) min(|x|, |x|^(p-1) / beta). The sums are [M].
        """
        self.rounder.round(scales, zero_points)
        magnitudes, powers, shrinkage = self._magnitudes, self._powers, self._shrinkage
        np.abs(self.rounder.residuals, out=magnitudes)
        np.maximum(magnitudes, _SMALLEST_RESIDUAL, out=magnitudes)
        np.power(magnitudes, np.float32(_NORM - 1), out=powers)
        np.multiply(powers, np.float32(1 / beta), out=shrinkage)
        np.minimum(shrinkage, magnitudes, out=shrinkage)
        np.copysign(shrinkage, self.rounder.residuals, out=shrinkage)
        return sum_inputs(np.multiply(powers, magnitudes, out=powers))

    def _step_scales(self, scales: FloatArray, zero_points: FloatArray) -> FloatArray:
        """Fit q = code - zero_point to W - W_e = scale * (q + shrinkage) by least squares."""
        codes, shrinkage = self.rounder.codes, self._shrinkage
        np.subtract(codes, zero_points, out=codes)
        products = sum_inputs(np.multiply(shrinkage, codes, out=shrinkage))
        squares = sum_inputs(np.multiply(codes, codes, out=codes))
        return scales + scales * (products / squares)
