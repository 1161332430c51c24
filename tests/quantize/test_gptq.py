"""GPTQ: against the paper's update with inverses in float64, and on inputs that it has not seen."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from glm_quantize import (
    FloatArray,
    InputStatistics,
    QuantizedRows,
    Scheme,
    SingularStatisticsError,
    dequantize,
)
from glm_quantize.methods import gptq
from glm_quantize.methods.gptq import prepare_gptq
from glm_quantize.methods.rtn import round_to_nearest
from glm_quantize.methods.rtn_search import search_scales
from support.weights import (
    SMALL_SCHEMES,
    DoubleArray,
    draw_inputs,
    draw_weight,
    each_small_scheme,
    measure_moments,
    output_error,
)

SCHEMES = [
    Scheme(bits, block, sym)
    for bits in (2, 4, 8)
    for block in (32, 64, 128, 256)
    for sym in (False, True)
]
each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)


def expand(rows: QuantizedRows) -> tuple[DoubleArray, DoubleArray]:
    """Scales and zero points of every weight, [N, C] each."""
    zeros = rows.scheme.default_zero_point if rows.zero_points is None else rows.zero_points
    zeros = np.broadcast_to(np.asarray(zeros, dtype=np.float64), rows.scales.shape)
    size = rows.scheme.block_size
    return np.repeat(rows.scales.astype(np.float64), size, 1), np.repeat(zeros, size, 1)


def round_naively(
    weight: FloatArray,
    grid: QuantizedRows,
    moments: FloatArray,
    follow: npt.NDArray[np.uint8] | None = None,
) -> tuple[DoubleArray, DoubleArray]:
    """The paper's section 3 in float64: one column, then all those that remain.

    Args:
        weight: [N, C].
        grid: scales and zero points.
        moments: H, not dampened.
        follow: codes to go on with in place of our own.

    Returns:
        Codes [N, C]; and what each weight was, in units of codes, when its turn came.
    """
    scales, zeros = expand(grid)
    hessian = moments.astype(np.float64)
    remaining = sorted(range(len(hessian)), key=lambda k: -hessian[k, k])
    hessian = hessian + 0.01 * np.diagonal(hessian).mean() * np.eye(len(hessian))
    rest = weight.astype(np.float64)
    codes, targets = np.empty_like(rest), np.empty_like(rest)
    while remaining:
        column = remaining[0]
        inverse = np.linalg.inv(hessian[np.ix_(remaining, remaining)])
        targets[:, column] = rest[:, column] / scales[:, column] + zeros[:, column]
        codes[:, column] = np.clip(np.rint(targets[:, column]), 0, grid.scheme.max_code)
        chosen = codes[:, column] if follow is None else follow[:, column].astype(np.float64)
        error = rest[:, column] - (chosen - zeros[:, column]) * scales[:, column]
        rest[:, remaining] -= np.outer(error / inverse[0, 0], inverse[0])
        remaining.pop(0)
    return codes, targets


@each_small_scheme
def test_codes_are_those_of_the_paper(scheme: Scheme) -> None:
    """At every step, after our codes so far: the nearest code, or within 1e-4 of a tie.

    The chain of columns is longer than what is compensated by vectors, so matrices take part.
    """
    weight, statistics = draw_weight(12, 96), measure_moments(draw_inputs(500, 96, draw=0))
    ours = prepare_gptq(scheme, statistics)(weight)
    grid = search_scales(weight, scheme, statistics.mean_squares)
    np.testing.assert_array_equal(ours.scales, grid.scales)
    expected, targets = round_naively(weight, grid, statistics.moments, follow=ours.codes)
    is_tie = np.abs(targets - np.floor(targets) - 0.5) < 1e-4
    assert ((ours.codes == expected) | is_tie).all()
    assert is_tie.mean() < 0.01


@each_small_scheme
def test_error_is_that_of_the_paper(scheme: Scheme) -> None:
    """After a tie a row may go another way, but on the whole no better and no worse."""
    weight, statistics = draw_weight(12, 96), measure_moments(draw_inputs(500, 96, draw=0))
    ours = prepare_gptq(scheme, statistics)(weight)
    codes, _ = round_naively(weight, ours, statistics.moments)
    scales, zeros = expand(ours)
    errors = [weight - (values - zeros) * scales for values in (ours.codes, codes)]
    mine, naive = (np.einsum("ni,ij,nj", e, statistics.moments, e) for e in errors)
    np.testing.assert_allclose(mine, naive, rtol=0.01)


@each_scheme
def test_beats_rounding_on_unseen_inputs(scheme: Scheme) -> None:
    """At most half the error: channels so correlated leave much to make up for."""
    weight = draw_weight(32, 256)
    statistics = measure_moments(draw_inputs(2048, 256, draw=0))
    unseen = draw_inputs(1024, 256, draw=1)
    ours = output_error(weight, prepare_gptq(scheme, statistics)(weight), unseen)
    plain = output_error(weight, round_to_nearest(weight, scheme), unseen)
    searched = search_scales(weight, scheme, statistics.mean_squares)
    assert ours < 0.5 * plain
    assert ours < 0.5 * output_error(weight, searched, unseen)


def test_order_by_mean_square_is_no_worse() -> None:
    """Than the columns as they come, on average over weights, inputs and schemes."""
    ratios = []
    for seed, scheme in enumerate(SMALL_SCHEMES * 2):
        weight = draw_weight(32, 128, seed)
        inputs = draw_inputs(1024, 128, draw=0, seed=seed)
        rounder = prepare_gptq(scheme, measure_moments(inputs))
        order = np.arange(128)
        _, feedback = gptq._factor(measure_moments(inputs).moments, order, "cpu")
        unordered = replace(rounder, order=order, feedback=feedback)
        errors = [output_error(weight, r(weight), inputs) for r in (rounder, unordered)]
        ratios.append(np.log(errors[0] / errors[1]))
    assert np.mean(ratios) < 0


@each_small_scheme
def test_dead_inputs(scheme: Scheme) -> None:
    """Nothing is to be made up for in columns that no input reached: they are rounded plainly."""
    weight, inputs = draw_weight(16, 128), draw_inputs(500, 128, draw=0)
    dead = np.r_[3, 40, 64:96]  # single columns, and a whole block
    inputs[:, dead] = 0
    rows = prepare_gptq(scheme, measure_moments(inputs))(weight)
    scales, zeros = expand(rows)
    nearest = np.clip(np.rint(weight / scales + zeros), 0, scheme.max_code)
    is_tie = np.abs((weight / scales) % 1 - 0.5) < 1e-4
    assert ((rows.codes == nearest) | is_tie)[:, dead].all()
    searched = search_scales(weight, scheme, measure_moments(inputs).mean_squares)
    assert output_error(weight, rows, inputs) < output_error(weight, searched, inputs)


def test_fewer_tokens_than_columns() -> None:
    """The paper's damping is enough for a matrix whose rank is a quarter."""
    weight, inputs = draw_weight(16, 256), draw_inputs(64, 256, draw=0)
    scheme, statistics = Scheme(4, 32, False), measure_moments(inputs)
    rounder = prepare_gptq(scheme, statistics)
    squares = statistics.mean_squares
    assert rounder.damping == pytest.approx(0.01 * squares.mean() / squares.max(), rel=1e-5)
    searched = search_scales(weight, scheme, statistics.mean_squares)
    mine = output_error(weight, rounder(weight), inputs)
    assert mine < 0.5 * output_error(weight, searched, inputs)


@pytest.mark.parametrize(("covariance", "share"), [(0.5, 0.01), (1.05, 0.1), (1.5, 1.0)])
def test_damping_grows_until_it_is_enough(covariance: float, share: float) -> None:
    """Pairs of inputs with a covariance above their variance of 1: the least eigenvalue is
    1 - covariance, and only sums that went wrong could give such moments."""
    moments = np.kron(np.eye(32), [[1, covariance], [covariance, 1]]).astype(np.float32)
    rounder = prepare_gptq(Scheme(4, 32, False), InputStatistics(moments, 1))
    assert rounder.damping == pytest.approx(share)
    assert np.isfinite(dequantize(rounder(draw_weight(4, 64)))).all()


def spoil(row: int, column: int, value: float) -> Callable[[FloatArray], None]:
    return lambda moments: moments.__setitem__((row, column), value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda moments: moments.fill(0), "the inputs were all zero"),
        (spoil(3, 3, np.nan), "hold NaN or Inf"),
        (spoil(3, 9, np.nan), "hold NaN or Inf"),
        (spoil(9, 3, np.inf), "hold NaN or Inf"),
        (spoil(5, 5, np.inf), "hold NaN or Inf"),
        (lambda moments: moments.__iadd__(4 * np.eye(64)[::-1]), "cannot be factored"),
    ],
)
def test_refuses_moments_without_a_factor(
    damage: Callable[[FloatArray], None], message: str
) -> None:
    moments = np.eye(64, dtype=np.float32)
    damage(moments)
    with pytest.raises(SingularStatisticsError, match=message):
        prepare_gptq(Scheme(4, 32, False), InputStatistics(moments, 10))


@pytest.mark.parametrize("factor", [2.0**-50, 2.0**50])
def test_units_of_the_inputs_do_not_matter(factor: float) -> None:
    """Squares of inputs of 10^-15 or 10^15 fit float32, but not all that is computed of them."""
    weight, statistics = draw_weight(16, 96), measure_moments(draw_inputs(500, 96, draw=0))
    scaled = InputStatistics(statistics.moments * np.float32(factor) ** 2, statistics.tokens)
    scheme = Scheme(4, 32, False)
    expected = prepare_gptq(scheme, statistics)(weight)
    np.testing.assert_array_equal(prepare_gptq(scheme, scaled)(weight).codes, expected.codes)
