"""Half-quadratic quantization: against a naive loop of its equations, and never worse by p-norm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from glm_quantize import METHODS, FloatArray, QuantizedRows, Scheme, dequantize
from glm_quantize.methods.hqq import half_quadratic
from support.weights import DoubleArray, assert_same_rows, draw_weight, each_scheme

FLOATS = st.floats(-1e3, 1e3, width=32)
NORM = 0.7


def block_norms(weight: FloatArray, rows: QuantizedRows) -> DoubleArray:
    """[N, blocks] sums of |weight - dequantized|^p in float64."""
    errors = np.abs(weight.astype(np.float64) - dequantize(rows)) ** NORM
    return errors.reshape(len(weight), -1, rows.scheme.block_size).sum(axis=2)


class NaiveBlock:
    """One block in float64, line by line from the equations, in the weight's own units."""

    def __init__(self, weights: DoubleArray, top: int) -> None:
        self.weights, self.top = weights, top
        self.best = (np.inf, 0.0, 0.0)

    def quantize(self, scale: float, zero: float) -> tuple[DoubleArray, DoubleArray]:
        codes = np.clip(np.rint(self.weights / scale + zero), 0, self.top)
        return codes, (codes - zero) * scale

    def shrink(self, error: DoubleArray, scale: float, beta: float) -> DoubleArray:
        """Shrink(x, beta), x in steps of the scale."""
        result = np.zeros_like(error)
        for j, x in enumerate(error / scale):
            if x:
                result[j] = np.sign(x) * max(abs(x) - abs(x) ** (NORM - 1) / beta, 0) * scale
        return result

    def step_zero(self, scale: float, zero: float, beta: float) -> float:
        codes, values = self.quantize(scale, zero)
        auxiliary = self.shrink(self.weights - values, scale, beta)
        return float(np.mean(codes - (self.weights - auxiliary) / scale))

    def step_scale(self, scale: float, zero: float, beta: float) -> float:
        codes, values = self.quantize(scale, zero)
        target = self.weights - self.shrink(self.weights - values, scale, beta)
        steps = codes - zero
        return float((steps * target).sum() / (steps * steps).sum())

    def fit_scale(self, scale: float, zero: float) -> None:
        for iteration in range(20):
            _, values = self.quantize(scale, zero)
            norm = float((np.abs(self.weights - values) ** NORM).sum())
            self.best = min(self.best, (norm, scale, zero))
            scale = self.step_scale(scale, zero, 10 * 1.01**iteration)

    def free_zero(self, scale: float, zero: float) -> tuple[float, float]:
        for iteration in range(20):
            zero = self.step_zero(scale, zero, 10 * 1.01**iteration)
            scale = self.step_scale(scale, zero, 10 * 1.01**iteration)
        return scale, min(max(round(zero), 0), self.top)


def naive_norm(block: DoubleArray, scheme: Scheme) -> float:
    """The p-norm that the equations reach on a block."""
    top, middle = 2**scheme.bits - 1, 2 ** (scheme.bits - 1)
    naive = NaiveBlock(block, top)
    if scheme.is_symmetric:
        naive.fit_scale(max(block, key=abs) / -middle, middle)
        return naive.best[0]
    scale = (max(block.max(), 0) - min(block.min(), 0)) / top
    zero = round(max(-block.min(), 0) / scale)
    naive.fit_scale(scale, zero)
    naive.fit_scale(*naive.free_zero(scale, zero))
    return naive.best[0]


@each_scheme
def test_equals_the_naive_loop(scheme: Scheme) -> None:
    """To float32's rounding of `max_code` steps; a residual close to a half may turn a code."""
    weight = draw_weight(2, 8 * scheme.block_size)
    ours = block_norms(weight, half_quadratic(weight, scheme)).ravel()
    blocked = weight.astype(np.float64).reshape(ours.size, -1)
    expected = np.array([naive_norm(block, scheme) for block in blocked])
    difference = np.abs(ours / expected - 1)
    assert np.median(difference) < scheme.max_code * 2.0**-24
    assert difference.max() < 1e-3


@each_scheme
def test_norm_is_lower_than_roundings(scheme: Scheme) -> None:
    """By 11 to 33 % with 2 bits, 3 to 7 % with 4, 1 to 5 % with 8; each floor is a little less."""
    weight = draw_weight(64, 1024)
    ours = block_norms(weight, half_quadratic(weight, scheme))
    plain = block_norms(weight, METHODS["rtn"](weight, scheme))
    floors = {2: 0.10, 4: 0.02, 8: 0.005}
    assert ours.sum() < plain.sum() * (1 - floors[scheme.bits])


@each_scheme
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_block_is_worse_than_rounding(scheme: Scheme, data: st.DataObject) -> None:
    """Norms are compared in float32, whose residuals are off by up to 2^-24 of `max_code` steps.

    Where both are that small, their powers 0.7 may differ by what 128 such residuals add.
    """
    weight = data.draw(hnp.arrays(np.float32, (2, 128), elements=FLOATS))
    rows, plain = half_quadratic(weight, scheme), METHODS["rtn"](weight, scheme)
    ours, bound = block_norms(weight, rows), block_norms(weight, plain)
    slack = scheme.block_size * (np.abs(plain.scales) * scheme.max_code * 2.0**-23) ** NORM
    assert (ours <= bound * (1 + 1e-4) + slack).all()


@each_scheme
def test_scaling_a_weight_scales_its_result(scheme: Scheme) -> None:
    """Beta has no unit here; in the weight's units it would shrink small weights to nothing."""
    weight = draw_weight(4, 256)
    rows, small = half_quadratic(weight, scheme), half_quadratic(weight / 128, scheme)
    np.testing.assert_array_equal(small.codes, rows.codes)
    np.testing.assert_array_equal(small.scales * 128, rows.scales)


@pytest.mark.parametrize("block_size", [32, 256])
@pytest.mark.parametrize("is_symmetric", [False, True])
def test_does_not_depend_on_the_run(block_size: int, is_symmetric: bool) -> None:
    """Row by row, and 24 blocks one by one, where sums could change their order."""
    scheme = Scheme(4, block_size, is_symmetric)
    weight = draw_weight(2, 300 * 256)
    whole = half_quadratic(weight, scheme)
    assert_same_rows(half_quadratic(weight[1:], scheme), whole, slice(1, 2))
    blocked = weight.reshape(-1, block_size)
    alone = QuantizedRows(
        scheme,
        whole.codes.reshape(blocked.shape),
        whole.scales.reshape(-1, 1),
        None if whole.zero_points is None else whole.zero_points.reshape(-1, 1),
    )
    for start in range(0, len(blocked), len(blocked) // 24):
        block = slice(start, start + 1)
        assert_same_rows(half_quadratic(blocked[block], scheme), alone, block)
