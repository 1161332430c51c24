"""Weights and inputs like those of trained models, for tests of methods."""

import numpy as np
import numpy.typing as npt
import pytest

from glm_quantize import FloatArray, InputStatistics, QuantizedRows, Scheme, dequantize

DoubleArray = npt.NDArray[np.float64]

SCHEMES = [
    Scheme(bits, block, sym) for bits in (2, 4, 8) for block in (32, 128) for sym in (False, True)
]
SMALL_SCHEMES = [scheme for scheme in SCHEMES if scheme.block_size == 32]
each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
each_small_scheme = pytest.mark.parametrize("scheme", SMALL_SCHEMES, ids=lambda s: s.name)


def draw_weight(rows: int, inputs: int, seed: int = 1) -> FloatArray:
    """Student t with 4 degrees of freedom: outliers, as trained weights have them."""
    return np.random.default_rng(seed).standard_t(4, size=(rows, inputs)).astype(np.float32)


def draw_inputs(tokens: int, inputs: int, draw: int, seed: int = 2) -> FloatArray:
    """Correlated channels, a few of them ten times as large, as activations are.

    Of one seed all draws have the same covariance.
    """
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(inputs, inputs)) / np.sqrt(1 + np.arange(inputs))[:, None]
    mixing[:, generator.choice(inputs, size=max(2, inputs // 64), replace=False)] *= 10
    z = np.random.default_rng([seed, draw]).normal(size=(tokens, inputs))
    return (z @ mixing).astype(np.float32)


def measure_moments(inputs: FloatArray) -> InputStatistics:
    """Of inputs [T, C]."""
    return InputStatistics(inputs.T @ inputs / np.float32(len(inputs)), len(inputs))


def output_error(weight: FloatArray, rows: QuantizedRows, inputs: FloatArray) -> float:
    """Mean square of what rounding changes of the outputs."""
    error = weight.astype(np.float64) - dequantize(rows)
    return float(((inputs @ error.T) ** 2).mean())


def assert_same_rows(
    first: QuantizedRows, second: QuantizedRows, of_second: slice = slice(None)
) -> None:
    """Bit for bit."""
    np.testing.assert_array_equal(first.codes, second.codes[of_second])
    np.testing.assert_array_equal(first.scales, second.scales[of_second])
    assert (first.zero_points is None) == (second.zero_points is None)
    if first.zero_points is not None and second.zero_points is not None:
        np.testing.assert_array_equal(first.zero_points, second.zero_points[of_second])
