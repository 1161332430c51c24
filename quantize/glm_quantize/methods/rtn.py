"""Round to nearest: the extreme values of a block determine its scale and zero point."""

import numpy as np
import numpy.typing as npt

from glm_quantize.codes import SMALLEST_SCALE, FloatArray, QuantizedRows
from glm_quantize.errors import QuantizationError
from glm_quantize.scheme import Scheme


def round_to_nearest(weight: FloatArray, scheme: Scheme) -> QuantizedRows:
    """Round every block of inputs to integers of `scheme.bits` bits.

    Args:
        weight: [N, C] float32, finite; C is a multiple of `scheme.block_size`.
        scheme: bits per code, block size, symmetric or not.

    Returns:
        Codes, scales and, if asymmetric, zero points. The error |weight - dequantized| is at most
        |scale| / 2, and |scale| at the clipped end of a symmetric block, which has one code fewer.

    Raises:
        SchemeError: C is not a multiple of the block size.
        QuantizationError: the weight holds NaN or Inf, or a block's range overflows float32.

    Source: Jacob et al. 2018, section 2.1 (arXiv:1712.05877); the symmetric scale divides the
    value of largest magnitude, with its sign, by -2^(bits-1), as in GGML's Q4_0.
    """
    blocks = scheme.count_blocks(weight.shape[1])
    blocked = weight.reshape(weight.shape[0], blocks, scheme.block_size)
    low, high = blocked.min(axis=2), blocked.max(axis=2)
    with np.errstate(over="ignore", invalid="ignore"):  # checked on the next line
        is_finite = np.isfinite(high - low).all()
    if not is_finite:
        raise QuantizationError(
            "the weight holds NaN or Inf, or a range beyond float32; check the checkpoint's file."
        )
    if scheme.is_symmetric:
        return _round_symmetric(blocked, low, high, scheme)
    return _round_asymmetric(blocked, low, high, scheme)


def _round_symmetric(
    blocked: FloatArray, low: FloatArray, high: FloatArray, scheme: Scheme
) -> QuantizedRows:
    extreme: FloatArray = np.where(-low > high, low, high)
    scales = _replace_tiny(extreme / np.float32(-scheme.default_zero_point))
    zero_point = np.float32(scheme.default_zero_point)
    codes = _round_codes(blocked, scales, zero_point, scheme)
    return QuantizedRows(scheme, codes, scales, None)


def _round_asymmetric(
    blocked: FloatArray, low: FloatArray, high: FloatArray, scheme: Scheme
) -> QuantizedRows:
    # The range always includes zero, so that zero is exact and the zero point fits its bits.
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scales = _replace_tiny((high - low) / np.float32(scheme.max_code))
    zero_points = np.clip(np.rint(-low / scales), 0, scheme.max_code).astype(np.float32)
    codes = _round_codes(blocked, scales, zero_points[:, :, None], scheme)
    return QuantizedRows(scheme, codes, scales, zero_points.astype(np.uint8))


def _replace_tiny(scales: npt.NDArray[np.floating]) -> FloatArray:
    """Let blocks with a tiny scale be stored as zeros."""
    return np.where(np.abs(scales) < SMALLEST_SCALE, np.float32(1), scales).astype(np.float32)


def _round_codes(
    blocked: FloatArray, scales: FloatArray, zero_points: FloatArray | np.float32, scheme: Scheme
) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    scaled = blocked * (np.float32(1) / scales)[:, :, None]
    scaled += zero_points
    np.rint(scaled, out=scaled)
    np.clip(scaled, 0, scheme.max_code, out=scaled)
    return scaled.astype(np.uint8).reshape(blocked.shape[0], -1)
