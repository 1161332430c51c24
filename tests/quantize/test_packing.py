"""Packing: exact for every byte, and the layout that ONNX Runtime documents."""

import warnings

import numpy as np
import pytest

from glm_quantize import (
    QuantizationError,
    QuantizedRows,
    Scheme,
    SchemeError,
    find_method,
    pack_rows,
    round_scales,
    unpack_rows,
)
from glm_quantize.packing import pack_codes, unpack_codes


def test_every_byte_survives_both_ways() -> None:
    packed = np.arange(256, dtype=np.uint8).reshape(2, 128)
    for bits in (2, 4):
        codes = unpack_codes(packed, bits, 128 * 8 // bits)
        assert codes.max() == (1 << bits) - 1
        np.testing.assert_array_equal(pack_codes(codes, bits), packed)
    np.testing.assert_array_equal(pack_codes(packed, 8), packed)
    np.testing.assert_array_equal(unpack_codes(packed, 8, 128), packed)


def test_earlier_code_in_the_low_half() -> None:
    codes = np.array([[0x1, 0x2, 0xF, 0x0, 0x5]], dtype=np.uint8)
    assert pack_codes(codes, 4).tolist() == [[0x21, 0x0F, 0x05]]
    quarters = np.array([[1, 2, 3, 0, 2]], dtype=np.uint8)
    assert pack_codes(quarters, 2).tolist() == [[0b00_11_10_01, 0b10]]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("is_symmetric", [True, False])
def test_rows_round_trip_with_odd_block_counts(bits: int, blocks: int, is_symmetric: bool) -> None:
    scheme = Scheme(bits, 32, is_symmetric)
    random = np.random.default_rng(0)
    codes = random.integers(0, 1 << bits, (3, 32 * blocks), dtype=np.uint8)
    zeros = None if is_symmetric else random.integers(0, 1 << bits, (3, blocks), dtype=np.uint8)
    rows = QuantizedRows(scheme, codes, random.normal(size=(3, blocks)).astype(np.float32), zeros)
    found = unpack_rows(pack_rows(rows), scheme)
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_array_equal(found.scales, rows.scales)
    if zeros is not None:
        np.testing.assert_array_equal(found.zero_points, zeros)


def test_scales_are_rounded_to_fp16_only_if_asked() -> None:
    codes = np.zeros((1, 64), dtype=np.uint8)
    scales = np.array([[0.1, 1e6]], dtype=np.float32)
    rows = QuantizedRows(Scheme(4, 32, True), codes, scales, None)
    assert round_scales(rows, "fp32") is rows
    with warnings.catch_warnings(action="error"):
        rounded = round_scales(rows, "fp16")
    assert rounded.scales.tolist() == [[float(np.float16(0.1)), np.inf]]


@pytest.mark.parametrize("block", [32, 64, 128, 256])
def test_every_block_size_of_the_kernels_is_accepted(block: int) -> None:
    assert Scheme(4, block, False).name == f"int4-b{block}-asym"


@pytest.mark.parametrize(("bits", "block"), [(3, 32), (16, 32), (4, 16), (4, 48), (8, 0)])
def test_schemes_without_a_kernel_are_refused(bits: int, block: int) -> None:
    with pytest.raises(SchemeError, match="choose one of"):
        Scheme(bits, block, False)


def test_unknown_method_lists_those_there_are() -> None:
    with pytest.raises(QuantizationError, match="no method 'best'; choose one of awq"):
        find_method("best")
