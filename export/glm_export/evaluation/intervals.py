"""Confidence intervals of a figure over units, by the symmetric bootstrap-t method.

A unit is a document of a task or a window of a text. The figure is a ratio of sums over units, for
example the sum of log-probabilities divided by the number of tokens. For a paired difference the
amounts are the differences of both models on the same unit, so that what makes a unit hard for both
of them cancels out.

Source: Hall, On Symmetric Bootstrap Confidence Intervals, 1988 (J. R. Statist. Soc. B 50);
standard error of a ratio: Cochran, Sampling Techniques, 1977, section 2.11; pairs of answers to the
same question: Miller, Adding Error Bars to Evals, 2024 (arXiv:2411.00640).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
CONFIDENCE = 0.95
_RESAMPLES = 4000
_CELLS_AT_ONCE = 1 << 22  # bounds the memory of the counts


@dataclass(frozen=True)
class Interval:
    """A figure and its confidence interval.

    Attributes:
        value: the figure over all units.
        low: lower bound.
        high: upper bound.
        is_known: whether there are enough units for both bounds.
    """

    value: float
    low: float
    high: float
    is_known: bool = True

    @property
    def excludes_zero(self) -> bool:
        """Whether the figure is shown to be above or below zero."""
        return self.is_known and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, eq=False)
class Units:
    """The parts of a figure, which is sum(amounts) / sum(sizes).

    Attributes:
        amounts: [n] amount of each unit.
        sizes: [n] size of each unit.
        is_logarithm: whether the figure is the exponential of this ratio, as a perplexity is.
    """

    amounts: Float64Array
    sizes: Float64Array
    is_logarithm: bool = False


def measure_difference(units: Units, others: Units) -> Interval | None:
    """Measure the paired difference units - others; for logarithms, the relative difference.

    Returns:
        The interval; None if both do not have the same units.
    """
    if not np.array_equal(units.sizes, others.sizes):
        return None
    found = measure_interval(units.amounts - others.amounts, units.sizes)
    if not units.is_logarithm:
        return found
    with np.errstate(over="ignore"):
        value, low, high = np.expm1([found.value, found.low, found.high]).tolist()
    return Interval(value, low, high, is_known=found.is_known)


def measure_interval(amounts: npt.ArrayLike, sizes: npt.ArrayLike) -> Interval:
    """Measure the ratio sum(amounts) / sum(sizes) and its interval of 95 % confidence.

    Units are drawn again with replacement, always with the same seed. Each draw gives t, the
    distance of its ratio from the ratio of all units in its own standard errors. The bounds are as
    many standard errors away as 95 % of these distances are at most. So the interval is also wide
    enough for few units, and for answers of which few differ.

    Args:
        amounts: [n] amount of each unit.
        sizes: [n] size of each unit, such as its number of tokens; 1 for a plain mean.
    """
    units = np.stack([np.asarray(amounts, np.float64), np.asarray(sizes, np.float64)], axis=1)
    value, error = (float(one[0]) for one in _measure(np.ones((1, len(units))), units))
    if error == 0:
        # Equal units: certain if they do not differ at all, else there is nothing to learn from.
        bound = 0.0 if value == 0 else math.inf
        return Interval(value, value - bound, value + bound, is_known=value == 0)
    ratios, errors = _resample(units)
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.where(ratios == value, 0.0, np.abs(ratios - value) / errors)
    bound = error * float(np.quantile(distances, CONFIDENCE, method="higher"))
    return Interval(value, value - bound, value + bound, is_known=math.isfinite(bound))


def _resample(units: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return the ratio and its standard error [_RESAMPLES] for draws of units [n, 2]."""
    generator = np.random.Generator(np.random.PCG64(0))
    count = len(units)
    rows = max(1, _CELLS_AT_ONCE // count)
    parts = []
    for start in range(0, _RESAMPLES, rows):
        size = min(rows, _RESAMPLES - start)
        counts = generator.multinomial(count, np.full(count, 1 / count), size)
        parts.append(_measure(counts.astype(np.float64), units))
    ratios, errors = zip(*parts, strict=True)
    return np.concatenate(ratios), np.concatenate(errors)


def _measure(counts: Float64Array, units: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return ratio and standard error [R] of the units [n, 2], each drawn `counts` [R, n] times."""
    number = len(units)
    amounts, sizes = units.T
    totals = counts @ sizes
    ratios = counts @ amounts / totals
    squares = (
        counts @ amounts**2
        - 2 * ratios * (counts @ (amounts * sizes))
        + ratios**2 * (counts @ sizes**2)
    )
    # Below the rounding of the sums, all units have the same ratio.
    rounding = 1e-13 * (counts @ amounts**2 + ratios**2 * (counts @ sizes**2))
    squares = np.where(squares <= rounding, 0.0, squares)
    return ratios, np.sqrt(squares * number / max(number - 1, 1)) / totals
