"""Quantized rows: codes with their scales and zero points, before packing."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glm_quantize.scheme import Scheme

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]
IndexArray = npt.NDArray[np.int64]

# Below this, 1 / scale overflows float32, and processors that flush denormals read zero.
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class QuantizedRows:
    """Rows of a weight as integers; in each block, weight ≈ (codes - zero_points) * scales.

    Attributes:
        scheme: bits, block size and symmetry.
        codes: [N, C] uint8, each from 0 to scheme.max_code.
        scales: [N, C / block_size] float32; a symmetric block may have a negative scale.
        zero_points: [N, C / block_size] uint8; None if the scheme is symmetric.
    """

    scheme: Scheme
    codes: ByteArray
    scales: FloatArray
    zero_points: ByteArray | None


def dequantize(rows: QuantizedRows) -> FloatArray:
    """Return the float weights that a kernel computes with.

    Returns:
        [N, C] float32, exactly `(code - zero_point) * scale` rounded once to float32.
    """
    count, inputs = rows.codes.shape
    blocked = rows.codes.reshape(count, -1, rows.scheme.block_size).astype(np.float32)
    if rows.zero_points is None:
        blocked -= np.float32(rows.scheme.default_zero_point)
    else:
        blocked -= rows.zero_points[:, :, None]
    blocked *= rows.scales[:, :, None]
    return blocked.reshape(count, inputs)


def round_scales(rows: QuantizedRows, dtype: str) -> QuantizedRows:
    """Round the scales to "fp32" or "fp16"; a scale too large for fp16 becomes infinite."""
    if dtype == "fp32":
        return rows
    with np.errstate(over="ignore"):
        scales = rows.scales.astype(np.float16).astype(np.float32)
    return QuantizedRows(rows.scheme, rows.codes, scales, rows.zero_points)
