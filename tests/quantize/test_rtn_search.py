"""Searched scales: against brute force, against the exact optimum, never worse than rounding."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from glm_quantize import METHODS, FloatArray, QuantizationError, QuantizedRows, Scheme, dequantize
from glm_quantize.methods import rtn_search
from glm_quantize.methods.rtn_search import search_scales
from support.weights import SCHEMES, DoubleArray, assert_same_rows, draw_weight, each_scheme

FLOATS = st.floats(-1e3, 1e3, width=32)


def draw_importance(inputs: int, seed: int = 2) -> FloatArray:
    """Mean squares of activations spread over decades, as those of real inputs do."""
    return np.exp(1.5 * np.random.default_rng(seed).normal(size=inputs)).astype(np.float32)


def block_errors(
    weight: FloatArray, values: FloatArray | DoubleArray, scheme: Scheme, importance: FloatArray
) -> DoubleArray:
    """[N, blocks] sums of importance * (weight - values)^2 in float64."""
    errors = (weight.astype(np.float64) - values) ** 2 * importance.astype(np.float64)
    return errors.reshape(len(weight), -1, scheme.block_size).sum(axis=2)


def exact_values(rows: QuantizedRows) -> DoubleArray:
    """(code - zero_point) * scale without float32's rounding."""
    zero_points = rows.scheme.default_zero_point if rows.zero_points is None else rows.zero_points
    zero_points = np.broadcast_to(zero_points, rows.scales.shape).astype(np.float64)
    spread = rows.scheme.block_size
    steps = rows.codes - np.repeat(zero_points, spread, axis=1)
    return steps * np.repeat(rows.scales, spread, axis=1)


def grid_ranges(block: DoubleArray, scheme: Scheme) -> list[tuple[float, int]]:
    """Scale and zero point of every clipped range, from the two conventions' definitions."""
    top, middle = 2**scheme.bits - 1, 2 ** (scheme.bits - 1)
    if scheme.is_symmetric:
        peak = abs(block).max()
        ratios = rtn_search._SYMMETRIC_RATIOS[scheme.bits]
        divisors = (middle, -middle, middle - 0.5, 0.5 - middle)
        return [(ratio * peak / divisor, middle) for ratio in ratios for divisor in divisors]
    ranges = []
    for low_ratio, high_ratio in product(rtn_search._ASYMMETRIC_RATIOS[scheme.bits], repeat=2):
        low, high = low_ratio * min(block.min(), 0), high_ratio * max(block.max(), 0)
        scale = (high - low) / top
        ranges.append((scale, min(max(round(-low / scale), 0), top)))
    return ranges


def brute_force(block: DoubleArray, importance: DoubleArray, scheme: Scheme) -> float:
    """The least error of the grid, each range's scale fitted to its codes."""
    least = np.inf
    for scale, zero_point in grid_ranges(block, scheme):
        codes = [min(max(round(w / scale) + zero_point, 0), 2**scheme.bits - 1) for w in block]
        steps = np.array(codes) - float(zero_point)
        powers = (importance * steps * steps).sum()
        fitted = (importance * steps * block).sum() / powers if powers else scale
        least = min(least, (importance * (block - fitted * steps) ** 2).sum())
    return least


def sweep_scales(block: DoubleArray, importance: DoubleArray, zero_point: int, top: int) -> float:
    """The least error of any positive scale whatever.

    As the scale falls from infinity, the code of w moves away from zero by one each time that
    scale passes |w| / (k + 1/2). Between such points the codes stand still and the best scale
    leaves sum(importance w^2) - sum(importance w q)^2 / sum(importance q^2).
    """
    reach = np.where(block > 0, top - zero_point, zero_point)
    passed, products, powers = [], [], []
    for w, weight_of, steps in zip(block, importance, reach, strict=True):
        for k in range(int(steps)):
            passed.append(abs(w) / (k + 0.5))
            products.append(weight_of * abs(w))
            powers.append(weight_of * (2 * k + 1))
    order = np.argsort(passed)[::-1]
    gains = np.cumsum(np.array(products)[order]) ** 2 / np.cumsum(np.array(powers)[order])
    return float((importance * block * block).sum() - gains.max(initial=0))


def find_optimum(block: DoubleArray, importance: DoubleArray, scheme: Scheme) -> float:
    """The least error of any scale and zero point. A negative scale mirrors the codes."""
    top, middle = 2**scheme.bits - 1, 2 ** (scheme.bits - 1)
    zero_points = (middle, top - middle) if scheme.is_symmetric else range(top + 1)
    return min(sweep_scales(block, importance, zero_point, top) for zero_point in zero_points)


@each_scheme
def test_is_as_good_as_brute_force_over_the_grid(scheme: Scheme) -> None:
    """Refinement may only gain on the grid's best.

    Two ranges whose errors agree to float32's rounding may be taken for each other: a weight is
    `max_code` steps of relative precision 2^-24 away from a residual of about a quarter of a step.
    """
    weight, importance = draw_weight(3, 256), draw_importance(256)
    rows = search_scales(weight, scheme, importance)
    ours = block_errors(weight, exact_values(rows), scheme, importance)
    blocked = weight.astype(np.float64).reshape(ours.size, -1)
    shares = np.tile(importance.astype(np.float64), 3).reshape(ours.size, -1)
    least = [brute_force(b, i, scheme) for b, i in zip(blocked, shares, strict=True)]
    tolerance = 1e-6 if scheme.bits < 8 else scheme.max_code * 2.0**-24 * 4
    assert (ours.ravel() <= np.array(least) * (1 + tolerance)).all()


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.bits < 8], ids=lambda s: s.name)
def test_is_close_to_the_optimum(scheme: Scheme, is_weighted: bool) -> None:
    """Within 2 % (0.09 dB) of the least error that any scale and zero point have, never below."""
    inputs, count = scheme.block_size * 4, 6
    weight = draw_weight(count, inputs)
    importance = draw_importance(inputs) if is_weighted else np.ones(inputs, dtype=np.float32)
    rows = search_scales(weight, scheme, importance if is_weighted else None)
    ours = block_errors(weight, exact_values(rows), scheme, importance)
    blocked = weight.astype(np.float64).reshape(ours.size, -1)
    shares = np.tile(importance.astype(np.float64), count).reshape(ours.size, -1)
    least = np.array([find_optimum(b, i, scheme) for b, i in zip(blocked, shares, strict=True)])
    assert (ours.ravel() >= least * (1 - 1e-9)).all()
    assert ours.sum() <= least.sum() * 1.02


@each_scheme
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_block_is_worse_than_rounding(scheme: Scheme, data: st.DataObject) -> None:
    """Exactly so: the sums differ from the method's own only in their order."""
    weight = data.draw(hnp.arrays(np.float32, (2, 128), elements=FLOATS))
    importance = data.draw(hnp.arrays(np.float32, 128, elements=st.floats(0, 1e6, width=32)))
    for start in range(0, 128, scheme.block_size):  # zeros everywhere weigh like ones
        block = importance[start : start + scheme.block_size]
        block[...] = block if block.any() else 1
    ours = dequantize(search_scales(weight, scheme, importance))
    plain = dequantize(METHODS["rtn"](weight, scheme))
    errors = block_errors(weight, ours, scheme, importance)
    assert (errors <= block_errors(weight, plain, scheme, importance) * (1 + 1e-12)).all()


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.bits == 4], ids=lambda s: s.name)
def test_gains_on_normal_weights(scheme: Scheme) -> None:
    """At least 0.4 dB less error than rounding; 0.46 to 0.58 dB are usual."""
    weight = np.random.default_rng(3).normal(size=(64, 1024)).astype(np.float32)
    ours = weight - dequantize(search_scales(weight, scheme))
    plain = weight - dequantize(METHODS["rtn"](weight, scheme))
    assert 10 * np.log10((plain**2).mean() / (ours**2).mean()) > 0.4


@each_scheme
def test_importance_matters(scheme: Scheme) -> None:
    weight, importance = draw_weight(16, 512), draw_importance(512)
    weighted = dequantize(search_scales(weight, scheme, importance))
    alike = dequantize(search_scales(weight, scheme))
    ones = np.ones_like(importance)
    for mine, other, measure in ((weighted, alike, importance), (alike, weighted, ones)):
        better = block_errors(weight, mine, scheme, measure).sum()
        assert better < 0.97 * block_errors(weight, other, scheme, measure).sum()


@each_scheme
def test_blocks_of_zero_importance_weigh_alike(scheme: Scheme) -> None:
    weight, importance = draw_weight(4, 256), np.zeros(256, dtype=np.float32)
    assert_same_rows(
        search_scales(weight, scheme, importance), search_scales(weight, scheme), slice(None)
    )


@pytest.mark.parametrize("block_size", [32, 256])
@pytest.mark.parametrize("is_symmetric", [False, True])
def test_does_not_depend_on_the_run(block_size: int, is_symmetric: bool) -> None:
    """Row by row, and 24 blocks one by one, where sums could change their order."""
    scheme = Scheme(4, block_size, is_symmetric)
    weight, importance = draw_weight(2, 300 * 256), draw_importance(300 * 256)
    whole = search_scales(weight, scheme, importance)
    assert_same_rows(search_scales(weight[1:], scheme, importance), whole, slice(1, 2))
    blocked = weight.reshape(-1, block_size)
    shares = np.concatenate([importance, importance]).reshape(-1, block_size)
    alone = QuantizedRows(
        scheme,
        whole.codes.reshape(blocked.shape),
        whole.scales.reshape(-1, 1),
        None if whole.zero_points is None else whole.zero_points.reshape(-1, 1),
    )
    for start in range(0, len(blocked), len(blocked) // 24):
        block = slice(start, start + 1)
        assert_same_rows(search_scales(blocked[block], scheme, shares[start]), alone, block)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_refuses_importance_that_is_no_mean_square(value: float) -> None:
    importance = np.full(64, value, dtype=np.float32)
    with pytest.raises(QuantizationError, match="negative values, NaN or Inf"):
        search_scales(np.ones((1, 64), dtype=np.float32), Scheme(4, 32, True), importance)
