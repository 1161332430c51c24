"""Byte layout of ONNX Runtime's block-quantized kernels (MatMulNBits, GatherBlockQuantized).

Four-bit codes lie two in a byte, the earlier one in the low half. Zero points are packed the same
way along a row's blocks; a row with an odd number of blocks ends in half a byte of padding.
Source: `com.microsoft.MatMulNBits` in ONNX Runtime's docs/ContribOperators.md.
"""

from dataclasses import dataclass

import numpy as np

from glm_quantize.codes import ByteArray, FloatArray, QuantizedRows
from glm_quantize.scheme import Scheme


@dataclass(frozen=True)
class PackedRows:
    """Rows of a weight as the kernels read them.

    Attributes:
        packed: [N, C * bits / 8] uint8.
        scales: [N, blocks] float32.
        zero_points: [N, ceil(blocks * bits / 8)] uint8, or None when the scheme is symmetric.
    """

    packed: ByteArray
    scales: FloatArray
    zero_points: ByteArray | None


def pack_codes(codes: ByteArray, bits: int) -> ByteArray:
    """[N, C] codes to [N, ceil(C * bits / 8)] bytes."""
    if bits == 8:
        return codes
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    high = np.left_shift(codes[:, 1::2], 4, dtype=np.uint8)
    return np.bitwise_or(codes[:, 0::2], high)


def unpack_codes(packed: ByteArray, bits: int, count: int) -> ByteArray:
    """[N, ceil(count * bits / 8)] bytes to [N, count] codes: the inverse of `pack_codes`."""
    if bits == 8:
        return packed
    codes = np.empty((packed.shape[0], packed.shape[1] * 2), dtype=np.uint8)
    codes[:, 0::2] = packed & 0x0F
    codes[:, 1::2] = packed >> 4
    return codes[:, :count]


def pack_rows(rows: QuantizedRows) -> PackedRows:
    """Lay codes and zero points out for the kernels; scales stay as they are."""
    bits = rows.scheme.bits
    zero_points = None if rows.zero_points is None else pack_codes(rows.zero_points, bits)
    return PackedRows(pack_codes(rows.codes, bits), rows.scales, zero_points)


def unpack_rows(packed: PackedRows, scheme: Scheme) -> QuantizedRows:
    """The inverse of `pack_rows`, used to check what was written."""
    blocks = packed.scales.shape[1]
    codes = unpack_codes(packed.packed, scheme.bits, blocks * scheme.block_size)
    zero_points = packed.zero_points
    if zero_points is not None:
        zero_points = unpack_codes(zero_points, scheme.bits, blocks)
    return QuantizedRows(scheme, codes, packed.scales, zero_points)
