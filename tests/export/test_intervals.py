"""Intervals against Student's t, the jackknife, and the share of simulations that they cover."""

import math

import numpy as np
import pytest

from glm_export.evaluation.intervals import Interval, Units, measure_difference, measure_interval

# Quantile 0.975 of Student's t with 29 degrees of freedom.
T_29 = 2.0452


def test_a_mean_of_normal_values_has_students_interval() -> None:
    """For normal values t is the exact distribution; 4,000 draws give it within some percent."""
    values = np.random.default_rng(1).normal(3, 2, 30)
    found = measure_interval(values, np.ones(30))
    half = T_29 * values.std(ddof=1) / math.sqrt(30)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)
    assert found == measure_interval(values, np.ones(30))  # the seed is fixed


def test_a_ratio_has_the_standard_error_of_the_jackknife() -> None:
    """With many units, bounds are 1.96 standard errors away."""
    draw = np.random.default_rng(2)
    sizes = draw.integers(1, 20, 400).astype(float)
    amounts = sizes * 0.5 + draw.normal(0, 1, 400)
    whole = amounts.sum() / sizes.sum()
    left = [(amounts.sum() - a) / (sizes.sum() - s) for a, s in zip(amounts, sizes, strict=True)]
    error = math.sqrt(399 / 400 * sum((one - whole) ** 2 for one in left))
    found = measure_interval(amounts, sizes)
    assert found.value == pytest.approx(whole)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


@pytest.mark.parametrize("kind", ["normal", "skewed", "rare"])
def test_intervals_cover_the_truth(kind: str) -> None:
    """At least 90 % of 200 simulations with 24 units (95 % is promised for many units).

    If an interval covers 95 %, fewer than 180 of 200 happen in 0.3 % of the runs; the seed is
    fixed, so the test does not vary. Quantiles of the mean itself cover less: 88 % for "skewed".
    """
    draw = np.random.default_rng(3)
    make = {
        "normal": lambda: (draw.normal(0.2, 1, 24), 0.2),
        "skewed": lambda: (draw.lognormal(0, 1, 24), math.exp(0.5)),
        "rare": lambda: (draw.binomial(1, 0.2, 24) - draw.binomial(1, 0.2, 24), 0.0),
    }[kind]
    covered = 0
    for _ in range(200):
        values, truth = make()
        found = measure_interval(values.astype(float), np.ones(24))
        covered += found.low <= truth <= found.high
    assert covered >= 180


def test_units_that_show_nothing() -> None:
    assert measure_interval(np.zeros(9), np.arange(1, 10)) == Interval(0.0, 0.0, 0.0)
    for amounts in ([0.5], [0.25, 0.25, 0.25]):
        found = measure_interval(amounts, np.ones(len(amounts)))
        assert not found.is_known
        assert not found.excludes_zero


@pytest.mark.parametrize(("num_worse", "is_shown"), [(3, False), (20, True)])
def test_few_changed_answers_show_nothing(num_worse: int, is_shown: bool) -> None:
    """Of 100 questions, the folder answers some more wrongly; an exact sign test agrees."""
    right = np.ones(100)
    folder = right.copy()
    folder[:num_worse] = 0
    found = measure_difference(Units(folder, right), Units(right, right))
    assert found is not None
    assert found.value == pytest.approx(-num_worse / 100)
    assert found.excludes_zero == is_shown
    assert (2 * 0.5**num_worse < 0.05) == is_shown


def test_pairs_show_what_plain_intervals_hide() -> None:
    """Hard texts are hard for both: the pairs differ by 2 %, the texts by a factor of e."""
    draw = np.random.default_rng(4)
    sizes = np.full(32, 512.0)
    original = sizes * draw.normal(4, 1, 32)
    folder = original + sizes * (math.log(1.02) + draw.normal(0, 0.005, 32))
    found = measure_difference(
        Units(folder, sizes, is_logarithm=True), Units(original, sizes, is_logarithm=True)
    )
    assert found is not None and found.excludes_zero
    assert found.value == pytest.approx(0.02, abs=0.004)
    assert 0.01 < found.low < found.value < found.high < 0.03
    alone = measure_interval(original, sizes)
    assert alone.high - alone.low > 0.5


def test_other_units_are_not_compared() -> None:
    assert measure_difference(Units(np.ones(2), np.ones(2)), Units(np.ones(3), np.ones(3))) is None


def test_many_units_take_bounded_memory() -> None:
    """MMLU has 14,042 questions."""
    values = np.random.default_rng(5).binomial(1, 0.6, 14042).astype(float)
    found = measure_interval(values, np.ones(14042))
    error = math.sqrt(0.24 / 14042)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
