"""What every method must do, one row each: a new line in the registry is tested here at once."""

import warnings

import numpy as np
import pytest

from glm_quantize import (
    METHODS,
    FloatArray,
    InputStatistics,
    QuantizationError,
    QuantizedRows,
    Scheme,
    SchemeError,
    dequantize,
    find_method,
)
from glm_quantize.methods.awq import search_column_scales
from support.weights import (
    assert_same_rows,
    draw_inputs,
    draw_weight,
    each_scheme,
    each_small_scheme,
    measure_moments,
    output_error,
)

each_method = pytest.mark.parametrize("name", METHODS)
CALIBRATED = [name for name, method in METHODS.items() if method.is_calibrated]
SMALLEST = float(np.finfo(np.float32).tiny)
# Nothing, too small for a scale, just large enough, and as large as float32 holds.
CONSTANTS = (0.0, 1e-45, -1e-38, 5e-38, 1e-36, 3.0, -3e38)


def draw_statistics(inputs: int) -> InputStatistics:
    return measure_moments(draw_inputs(4 * inputs, inputs, draw=0))


@each_method
@each_scheme
def test_shapes_and_ranges(name: str, scheme: Scheme) -> None:
    rows = METHODS[name](draw_weight(5, 384), scheme, draw_statistics(384))
    blocks = 384 // scheme.block_size
    assert rows.scheme == scheme
    assert rows.codes.shape == (5, 384) and rows.codes.dtype == np.uint8
    assert scheme.default_zero_point < rows.codes.max() <= scheme.max_code
    assert rows.scales.shape == (5, blocks) and rows.scales.dtype == np.float32
    assert (rows.zero_points is None) == scheme.is_symmetric
    if rows.zero_points is not None:
        assert rows.zero_points.shape == (5, blocks) and rows.zero_points.dtype == np.uint8
        assert rows.zero_points.max() <= scheme.max_code


@each_method
@each_scheme
@pytest.mark.parametrize("value", CONSTANTS)
def test_constant_and_tiny_blocks_stay_finite(name: str, scheme: Scheme, value: float) -> None:
    """Scales below float32's smallest normal number are for no kernel: such blocks become zeros."""
    weight = np.full((2, 128), value, dtype=np.float32)
    rows = METHODS[name](weight, scheme, draw_statistics(128))
    assert np.isfinite(rows.scales).all() and (np.abs(rows.scales) >= SMALLEST).all()
    assert rows.codes.max() <= scheme.max_code
    np.testing.assert_allclose(dequantize(rows), weight, rtol=1e-4, atol=scheme.max_code * SMALLEST)


@each_method
@each_small_scheme
def test_same_input_same_codes(name: str, scheme: Scheme) -> None:
    weight, statistics = draw_weight(33, 192), draw_statistics(192)
    first, second = (METHODS[name](weight, scheme, statistics) for _ in range(2))
    assert_same_rows(first, second)


@each_method
@pytest.mark.parametrize("scheme", [Scheme(4, 32, False), Scheme(4, 128, True)], ids=str)
def test_rows_do_not_depend_on_each_other(name: str, scheme: Scheme) -> None:
    """Exactly so in runs of the same length, and always in methods that take blocks one by one.

    Where a sum goes over a row, its order may depend on the run's length and tip a tie: about once
    in 10^5 codes, and the row is another from there on.
    """
    quantize = METHODS[name].prepare(scheme, draw_statistics(256), "cpu")
    weight = draw_weight(90, 256)
    whole = quantize(weight)
    others = weight[::-1].copy()
    others[40] = weight[40]
    of_others = quantize(others)
    np.testing.assert_array_equal(of_others.codes[40], whole.codes[40])
    np.testing.assert_array_equal(of_others.scales[40], whole.scales[40])
    is_blockwise = name in ("rtn", "rtn-search", "hqq", "awq")
    for step in (1, 7, 64):
        pieces = [quantize(weight[start : start + step]) for start in range(0, 90, step)]
        codes = np.concatenate([piece.codes for piece in pieces])
        assert (codes != whole.codes).any(axis=1).sum() <= (0 if is_blockwise else 3)


def round_folded(
    name: str, weight: FloatArray, scheme: Scheme, inputs: FloatArray
) -> tuple[FloatArray, QuantizedRows]:
    """The weight that is rounded, and its codes: of folding methods with its columns scaled."""
    if not METHODS[name].is_folding:
        return weight, METHODS[name](weight, scheme, measure_moments(inputs))
    scales = search_column_scales(weight, scheme, inputs[:512])
    folded = weight * scales
    return folded, METHODS[name](folded, scheme, measure_moments(inputs / scales))


@pytest.mark.parametrize("name", CALIBRATED)
@each_scheme
def test_calibrated_ones_beat_rounding_on_unseen_inputs(name: str, scheme: Scheme) -> None:
    """Output error on inputs that calibration did not see, as a share of that of `rtn`.

    Blocks on their own take at least 15 % off; making up for each other's errors half and more,
    since channels so correlated leave much to make up for.
    """
    weight = draw_weight(32, 256)
    seen, unseen = draw_inputs(2048, 256, draw=0), draw_inputs(1024, 256, draw=1)
    folded, rows = round_folded(name, weight, scheme, seen)
    scales = (folded / weight)[0]
    ours = output_error(folded, rows, unseen / scales)
    plain = output_error(weight, find_method("rtn")(weight, scheme), unseen)
    assert ours < (0.85 if name == "awq" else 0.5) * plain


@each_method
def test_read_only_arrays_do_not_warn(name: str) -> None:
    """torch warns of arrays that it must not write to; files are often mapped as such."""
    weight, statistics = draw_weight(1, 64), draw_statistics(64)
    weight.setflags(write=False)
    statistics.moments.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        METHODS[name](weight, Scheme(4, 32, False), statistics)


@each_method
@each_scheme
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_not_a_number(name: str, scheme: Scheme, value: float) -> None:
    weight = draw_weight(2, 128)
    weight[1, 7] = value
    with pytest.raises(QuantizationError, match="the weight holds NaN or Inf"):
        METHODS[name](weight, scheme, draw_statistics(128))


@each_method
@each_small_scheme
def test_refuses_a_range_beyond_float32(name: str, scheme: Scheme) -> None:
    weight = draw_weight(2, 128)
    weight[1, 7], weight[1, 8] = 3e38, -3e38
    with pytest.raises(QuantizationError, match="a range beyond float32"):
        METHODS[name](weight, scheme, draw_statistics(128))


@each_method
def test_refuses_a_block_size_that_does_not_divide(name: str) -> None:
    with pytest.raises(SchemeError, match="row of 48 weights does not divide into blocks of 32"):
        METHODS[name](draw_weight(2, 48), Scheme(4, 32, True), draw_statistics(48))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("rtn", "hqq")])
def test_refuses_statistics_of_another_width(name: str) -> None:
    with pytest.raises(QuantizationError, match=r"importance is \[64\].*rows have 96 inputs"):
        METHODS[name](draw_weight(2, 96), Scheme(4, 32, False), draw_statistics(64))


def test_refuses_an_unknown_name() -> None:
    with pytest.raises(QuantizationError, match="no method 'best'; choose one of awq, awq-gptq"):
        find_method("best")
