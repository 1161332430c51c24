"""Codes out of 32-bit words. All formats store words little-endian, as safetensors does.

Where the lowest bits hold the earliest code, the words' bytes in order are what
`glm_quantize.packing.unpack_codes` takes; only AWQ shuffles codes inside a word.
"""

import numpy as np

from glm_quantize.codes import ByteArray
from glm_quantize.packing import unpack_codes

WORD_BITS = 32
_WORD_BYTES = 4
# Which of eight outputs the nibbles of a word hold, lowest first.
# Source: AutoAWQ's `WQLinear_GEMM.from_linear`, `order_map`.
_AWQ_OUTPUTS = (0, 2, 4, 6, 1, 3, 5, 7)


def count_words(codes: int, bits: int) -> int:
    """Words that hold so many codes, the last perhaps not full."""
    return -(-codes * bits // WORD_BITS)


def unpack_along_row(data: ByteArray, bits: int, count: int) -> ByteArray:
    """[R, bytes of words] to [R, count] codes, lowest bits first."""
    return unpack_codes(data, bits, count)[:, :count]


def unpack_along_column(data: ByteArray, bits: int, count: int) -> ByteArray:
    """Words [W, bytes of M words], each with codes of one column, to [M, count] codes."""
    words = np.ascontiguousarray(data.view("<u4").T)  # [M, W]
    return unpack_along_row(words.view(np.uint8), bits, count)


def unpack_awq(data: ByteArray) -> ByteArray:
    """Words [R, bytes of W words] of eight 4-bit codes each, in AWQ's order, to [8 W, R] codes."""
    words = np.ascontiguousarray(data.view("<u4").T)  # [W, R]
    nibbles = words.view(np.uint8).reshape(*words.shape, _WORD_BYTES)
    codes = np.empty((words.shape[0], 8, words.shape[1]), dtype=np.uint8)
    for place, output in enumerate(_AWQ_OUTPUTS):
        codes[:, output] = (nibbles[:, :, place // 2] >> (4 * (place % 2))) & 15
    return codes.reshape(-1, words.shape[1])
