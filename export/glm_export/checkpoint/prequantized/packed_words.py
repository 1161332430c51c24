"""Unpacking codes from little-endian 32-bit words.

If the lowest bits of a word hold the first code, `glm_quantize.packing.unpack_codes` can unpack the
bytes. Only AWQ has another order of codes in a word.
"""

import numpy as np

from glm_quantize.codes import ByteArray
from glm_quantize.packing import unpack_codes

WORD_BITS = 32
_WORD_BYTES = 4
# The output, of eight, that each nibble of a word belongs to, the lowest nibble first.
# Source: AutoAWQ's `WQLinear_GEMM.from_linear`, `order_map`.
_AWQ_OUTPUTS = (0, 2, 4, 6, 1, 3, 5, 7)


def count_words(codes: int, bits: int) -> int:
    """Return the number of words that hold `codes` codes; the last one may not be full."""
    return -(-codes * bits // WORD_BITS)


def unpack_along_row(data: ByteArray, bits: int, count: int) -> ByteArray:
    """Unpack [R, bytes of words] into codes [R, count], lowest bits first."""
    return unpack_codes(data, bits, count)[:, :count]


def unpack_along_column(data: ByteArray, bits: int, count: int) -> ByteArray:
    """Unpack words [W, bytes of M words], each with codes of one column, into codes [M, count]."""
    words = np.ascontiguousarray(data.view("<u4").T)  # [M, W]
    return unpack_along_row(words.view(np.uint8), bits, count)


def unpack_awq(data: ByteArray) -> ByteArray:
    """Unpack words [R, bytes of W words] of eight 4-bit codes in AWQ's order into [8 W, R]."""
    words = np.ascontiguousarray(data.view("<u4").T)  # [W, R]
    nibbles = words.view(np.uint8).reshape(*words.shape, _WORD_BYTES)
    codes = np.empty((words.shape[0], 8, words.shape[1]), dtype=np.uint8)
    for place, output in enumerate(_AWQ_OUTPUTS):
        codes[:, output] = (nibbles[:, :, place // 2] >> (4 * (place % 2))) & 15
    return codes.reshape(-1, words.shape[1])
