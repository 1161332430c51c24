"""Refined codes: against brute force over all codes, and never worse than what they came from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from glm_quantize import (
    FloatArray,
    InputStatistics,
    QuantizationError,
    QuantizedRows,
    Scheme,
    SchemeError,
    SingularStatisticsError,
    dequantize,
)
from glm_quantize.methods import refine
from glm_quantize.methods.refine import prepare_gptq_refine, refine_codes
from glm_quantize.methods.rtn import round_to_nearest
from glm_quantize.methods.rtn_search import search_scales
from support.weights import (
    DoubleArray,
    draw_inputs,
    draw_weight,
    each_scheme,
    each_small_scheme,
    measure_moments,
)


def dampen(moments: FloatArray) -> torch.Tensor:
    mean = np.float32(np.diagonal(moments).mean())
    return torch.from_numpy(moments + 0.01 * mean * np.eye(len(moments), dtype=np.float32))


def row_errors(weight: FloatArray, rows: QuantizedRows, moments: torch.Tensor) -> DoubleArray:
    """[N] E H Eᵀ in float64, with values as kernels see them."""
    error = weight.astype(np.float64) - dequantize(rows)
    outputs: DoubleArray = error @ moments.numpy().astype(np.float64)
    return np.asarray((outputs * error).sum(axis=1))


def float_noise(weight: FloatArray, rows: QuantizedRows, moments: torch.Tensor) -> DoubleArray:
    """[N], what E H Eᵀ may be where E is no more than the last bit of the values, 2^-23 of them."""
    size = np.maximum(np.abs(weight), np.abs(dequantize(rows))).astype(np.float64) * 2.0**-23
    return np.asarray((size @ np.abs(moments.numpy().astype(np.float64)) * size).sum(axis=1))


class NaiveDescent:
    """One row in float64: every candidate's whole objective is computed.

    By einsum, since threads of numpy's matrix products wait for each other on a busy machine.
    """

    def __init__(self, weight: FloatArray, rows: QuantizedRows, row: int, hessian: DoubleArray):
        self.weight, self.hessian = weight[row].astype(np.float64), hessian
        self.size, self.top = rows.scheme.block_size, rows.scheme.max_code
        self.codes = rows.codes[row].astype(np.float64)
        self.scales = rows.scales[row].astype(np.float64)
        default = np.full(len(self.scales), rows.scheme.default_zero_point)
        self.zeros = (default if rows.zero_points is None else rows.zero_points[row]).astype(float)
        self.margin = np.inf

    def errors(self, codes: DoubleArray) -> DoubleArray:
        """[..., C] weight - value."""
        zeros, scales = np.repeat(self.zeros, self.size), np.repeat(self.scales, self.size)
        return np.asarray(self.weight - (codes - zeros) * scales)

    def objectives(self, errors: DoubleArray) -> DoubleArray:
        """[n] of errors [n, C]."""
        outputs = np.einsum("ni,ij->nj", errors, self.hessian)
        return np.asarray(np.einsum("ni,ni->n", outputs, errors))

    def fit_scale(self, block: int) -> None:
        """The objective is a parabola of the scale: its bottom, through three points."""
        steps = self.codes - self.zeros[block]
        steps[np.arange(len(steps)) // self.size != block] = 0
        if not steps.any():
            return
        scale, middle = self.scales[block], self.errors(self.codes)
        left, center, right = self.objectives(middle + np.outer([scale, 0, -scale], steps))
        fitted = scale + scale / 2 * (left - right) / (left - 2 * center + right)
        if fitted * self.scales[block] > 0:
            self.scales[block] = fitted

    def choose_code(self, column: int) -> None:
        """Try all; remember how close the second best came, 0 being a tie and 1 a whole step."""
        candidates = np.repeat(self.codes[None], self.top + 1, axis=0)
        candidates[:, column] = np.arange(self.top + 1)
        objectives = self.objectives(self.errors(candidates))
        best, second = np.partition(objectives, 1)[:2]
        step = self.scales[column // self.size] ** 2 * self.hessian[column, column]
        self.margin = min(self.margin, (second - best) / step)
        self.codes[column] = objectives.argmin()

    def visit_all(self) -> None:
        for block in range(len(self.scales)):
            self.fit_scale(block)
            for column in range(block * self.size, (block + 1) * self.size):
                self.choose_code(column)


@each_small_scheme
def test_equals_brute_force_over_all_codes(scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever no choice was within 1e-3 of a tie: the pulls' rounding is below that.

    Pulls come in groups of 64 and 64 and 32 columns.
    """
    monkeypatch.setattr(refine, "PASSES", 2)
    monkeypatch.setattr(refine, "_COLUMNS_AT_ONCE", 64)
    weight, statistics = draw_weight(4, 160), measure_moments(draw_inputs(400, 160, draw=0))
    moments = dampen(statistics.moments)
    start = search_scales(weight, scheme, statistics.mean_squares)
    ours = refine_codes(weight, start, moments)
    compared = 0
    for row in range(len(weight)):
        naive = NaiveDescent(weight, start, row, moments.numpy().astype(np.float64))
        naive.visit_all()
        naive.visit_all()
        if naive.margin < 1e-3:
            continue
        np.testing.assert_array_equal(ours.codes[row], naive.codes)
        np.testing.assert_allclose(ours.scales[row], naive.scales, rtol=1e-4)
        compared += 1
    assert compared >= 2
    assert (ours.codes != start.codes).mean() > 0.01


@each_small_scheme
@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_row_gets_worse(scheme: Scheme, data: st.DataObject) -> None:
    """Whatever the codes to start from.

    But for float32: a choice between two codes may be wrong by the rounding of their pulls.
    """
    weight = data.draw(hnp.arrays(np.float32, (2, 64), elements=st.floats(-100, 100, width=32)))
    inputs = data.draw(hnp.arrays(np.float32, (16, 64), elements=st.integers(-100, 100)))
    moments = measure_moments(inputs).moments if inputs.any() else np.eye(64, dtype=np.float32)
    start = round_to_nearest(weight, scheme)
    if data.draw(st.booleans()):
        any_code = st.integers(0, scheme.max_code)
        start = replace(start, codes=data.draw(hnp.arrays(np.uint8, (2, 64), elements=any_code)))
    hessian = dampen(moments)
    before = row_errors(weight, start, hessian)
    refined = refine_codes(weight, start, hessian)
    bound = before * (1 + 1e-4) + float_noise(weight, start, hessian)
    assert (row_errors(weight, refined, hessian) <= bound).all()


@each_scheme
def test_every_pass_gains(scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, statistics = draw_weight(16, 384), measure_moments(draw_inputs(1000, 384, draw=0))
    rounder = prepare_gptq_refine(scheme, statistics)
    rows = rounder.gptq(weight)
    errors = [row_errors(weight, rows, rounder.moments)]
    for passes in (1, 2, 3, 4):
        monkeypatch.setattr(refine, "PASSES", passes)
        errors.append(row_errors(weight, rounder(weight), rounder.moments))
        assert (errors[-1] <= errors[-2] * (1 + 1e-5)).all()
    assert errors[-1].sum() < 0.97 * errors[0].sum()


@each_scheme
def test_beats_gptq_on_unseen_inputs(scheme: Scheme) -> None:
    weight, unseen = draw_weight(32, 256), draw_inputs(1024, 256, draw=1)
    rounder = prepare_gptq_refine(scheme, measure_moments(draw_inputs(4096, 256, draw=0)))
    outputs = [unseen @ (weight - dequantize(r(weight))).T for r in (rounder, rounder.gptq)]
    assert (outputs[0] ** 2).mean() < 0.97 * (outputs[1] ** 2).mean()


@each_scheme
def test_what_is_exact_stays(scheme: Scheme) -> None:
    """Weights that have codes already, their scales powers of two: no error, nothing to gain."""
    generator = np.random.default_rng(5)
    shape = (4, 256 // scheme.block_size)
    codes = generator.integers(0, scheme.max_code + 1, (4, 256)).astype(np.uint8)
    scales = np.exp2(generator.integers(-3, 3, shape)).astype(np.float32)
    zeros = generator.integers(0, scheme.max_code + 1, shape).astype(np.uint8)
    rows = QuantizedRows(scheme, codes, scales, None if scheme.is_symmetric else zeros)
    statistics = measure_moments(draw_inputs(500, 256, draw=0))
    refined = refine_codes(dequantize(rows), rows, dampen(statistics.moments))
    np.testing.assert_array_equal(refined.codes, codes)
    np.testing.assert_array_equal(refined.scales, scales)


@each_scheme
def test_scales_keep_their_sign_and_zero_points_their_value(scheme: Scheme) -> None:
    """Also where least squares would turn the sign: codes that are the weights' opposite."""
    weight, moments = draw_weight(8, 128), measure_moments(draw_inputs(400, 128, draw=0)).moments
    start = round_to_nearest(weight, scheme)
    for codes in (start.codes, scheme.max_code - start.codes):
        rows = replace(start, codes=codes)
        refined = refine_codes(weight, rows, dampen(moments))
        np.testing.assert_array_equal(np.sign(refined.scales), np.sign(start.scales))
        assert np.abs(refined.scales).min() >= np.finfo(np.float32).tiny
        assert refined.codes.dtype == np.uint8 and refined.codes.max() <= scheme.max_code
        assert refined.zero_points is start.zero_points


@each_small_scheme
@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-38, 5e-38, 3.0, -3e37])
def test_constant_and_tiny_blocks_stay_finite(scheme: Scheme, value: float) -> None:
    """Also beside blocks of usual size, which pull at them."""
    weight = draw_weight(2, 128)
    weight[0, 32:64] = value
    weight[1] = value
    rounder = prepare_gptq_refine(scheme, measure_moments(draw_inputs(400, 128, draw=0)))
    refined = rounder(weight)
    assert np.isfinite(refined.scales).all() and (np.abs(refined.scales) > 0).all()
    start = rounder.gptq(weight)
    before, after = (row_errors(weight, rows, rounder.moments) for rows in (start, refined))
    assert (after <= before * (1 + 1e-4) + float_noise(weight, start, rounder.moments)).all()


def test_damping_is_that_of_gptq() -> None:
    """The moments themselves stay as they were: others use them too."""
    pairs = np.kron(np.eye(16), [[1, 1.05], [1.05, 1]]).astype(np.float32)
    statistics = InputStatistics(4 * pairs, 1)
    rounder = prepare_gptq_refine(Scheme(4, 32, False), statistics)
    np.testing.assert_array_equal(statistics.moments, 4 * pairs)
    np.testing.assert_allclose(rounder.moments.numpy(), pairs + 0.1 * np.eye(32), rtol=1e-6)


def test_refuses_what_gptq_refuses() -> None:
    zeros = InputStatistics(np.zeros((64, 64), dtype=np.float32), 10)
    with pytest.raises(SingularStatisticsError, match="all zero"):
        prepare_gptq_refine(Scheme(4, 32, False), zeros)
    statistics, weight = measure_moments(draw_inputs(100, 64, draw=0)), draw_weight(2, 64)
    with pytest.raises(SchemeError, match="does not divide into blocks of 128"):
        prepare_gptq_refine(Scheme(4, 128, False), statistics)(weight)
    weight[0, 0] = np.nan
    with pytest.raises(QuantizationError, match="the weight holds NaN or Inf"):
        prepare_gptq_refine(Scheme(4, 32, False), statistics)(weight)
