"""Byte layout of ONNX Runtime's block-quantized kernels (MatMulNBits, GatherBlockQuantized).

A byte holds two int4 or four int2 codes, the first one in the lowest bits. The zero points of a
row's blocks are packed the same way; padding bits fill the last byte of a row.
Source: `com.microsoft.MatMulNBits` in ONNX Runtime's docs/ContribOperators.md.
"""

from dataclasses import dataclass

import numpy as np

from glm_quantize.codes import ByteArray, FloatArray, QuantizedRows
from glm_quantize.scheme import Scheme


@dataclass(frozen=True)
class PackedRows:
    """Rows of a weight in the layout that the kernels read.

    Attributes:
        packed: [N, C * bits / 8] uint8.
        scales: [N, blocks] float32.
        zero_points: [N, ceil(blocks * bits / 8)] uint8; None if the scheme is symmetric.
    """

    packed: ByteArray
    scales: FloatArray
    zero_points: ByteArray | None


def pack_codes(codes: ByteArray, bits: int) -> ByteArray:
    """Pack codes [N, C] into bytes [N, ceil(C * bits / 8)]."""
    per_byte = 8 // bits
    if per_byte == 1:
        return codes
    if codes.shape[1] % per_byte:
        codes = np.pad(codes, ((0, 0), (0, -codes.shape[1] % per_byte)))
    packed = codes[:, 0::per_byte].copy()
    for place in range(1, per_byte):
        packed |= np.left_shift(codes[:, place::per_byte], bits * place, dtype=np.uint8)
    return packed


def unpack_codes(packed: ByteArray, bits: int, count: int) -> ByteArray:
    """Unpack bytes [N, ceil(count * bits / 8)] into codes [N, count]."""
    per_byte = 8 // bits
    if per_byte == 1:
        return packed
    codes = np.empty((packed.shape[0], packed.shape[1] * per_byte), dtype=np.uint8)
    for place in range(per_byte):
        codes[:, place::per_byte] = (packed >> (bits * place)) & ((1 << bits) - 1)
    return codes[:, :count]


def pack_rows(rows: QuantizedRows) -> PackedRows:
    """Pack codes and zero points for the kernels; the scales stay unchanged."""
    bits = rows.scheme.bits
    zero_points = None if rows.zero_points is None else pack_codes(rows.zero_points, bits)
    return PackedRows(pack_codes(rows.codes, bits), rows.scales, zero_points)


def unpack_rows(packed: PackedRows, scheme: Scheme) -> QuantizedRows:
    """Unpack what `pack_rows` packed, to verify a written file."""
    blocks = packed.scales.shape[1]
    codes = unpack_codes(packed.packed, scheme.bits, blocks * scheme.block_size)
    zero_points = packed.zero_points
    if zero_points is not None:
        zero_points = unpack_codes(zero_points, scheme.bits, blocks)
    return QuantizedRows(scheme, codes, packed.scales, zero_points)
