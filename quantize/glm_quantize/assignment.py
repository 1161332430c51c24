"""Mixed precision: choose a scheme for each tensor, with the least loss within a size budget.

This is a multiple-choice knapsack problem: one choice per tensor, the least total cost, and a total
size within the budget. The caller measures the sizes and costs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from glm_quantize.codes import DoubleArray, IndexArray
from glm_quantize.errors import QuantizationError
from glm_quantize.scheme import Scheme

BoolArray = npt.NDArray[np.bool_]

# Largest number of partial assignments kept per tensor; with fewer, the result is optimal. At this
# limit, costs of random models of 162 and 246 tensors were within 0.1 % of the Lagrangian bound.
_MOST_STATES = 1 << 13
# Largest relative difference between two orders of adding the costs.
_ROUNDING = 1e-12


class BudgetError(QuantizationError):
    """The smallest possible assignment exceeds the budget."""

    def __init__(self, budget_bytes: int, smallest_bytes: int) -> None:
        super().__init__(
            f"the budget is {budget_bytes} bytes, but the smallest assignment of schemes takes "
            f"{smallest_bytes} bytes; allow at least that."
        )


@dataclass(frozen=True)
class Choice:
    """One scheme that a tensor may get.

    Attributes:
        scheme: the scheme.
        size_bytes: size of the tensor in this scheme, scales and zero points included.
        cost: finite loss that this scheme causes; the losses of all tensors are added.
    """

    scheme: Scheme
    size_bytes: int
    cost: float


def assign_schemes(choices: Mapping[str, Sequence[Choice]], budget_bytes: int) -> dict[str, Choice]:
    """Choose one scheme per tensor with the least total cost within a size budget.

    Args:
        choices: at least one choice for each tensor name.
        budget_bytes: largest total size of all tensors.

    Returns:
        The choice of each tensor, in the order of `choices`. If two assignments cost the same, the
        smaller one is returned. The result is optimal unless more than 8192 partial assignments
        were worth keeping at some tensor; even then no change of a single tensor lowers the cost.

    Raises:
        BudgetError: the smallest choices together exceed the budget.

    Source: dominance as in Nemhauser and Ullmann 1969, bounds from the Lagrangian relaxation as in
    Kellerer, Pferschy and Pisinger 2004, "Knapsack Problems", section 11.2.
    """
    useful = [_drop_dominated(options) for options in choices.values()]
    smallest = sum(options[0].size_bytes for options in useful)
    if smallest > budget_bytes:
        raise BudgetError(budget_bytes, smallest)
    problem = _Problem.build(useful, budget_bytes)
    picked = _search(problem, _find_multiplier(problem))
    return {name: useful[i][picked[i]] for i, name in enumerate(choices)}


def _drop_dominated(options: Sequence[Choice]) -> list[Choice]:
    """Sort choices by size and drop each one that costs no less than a smaller one."""
    kept: list[Choice] = []
    for option in sorted(options, key=lambda option: (option.size_bytes, option.cost)):
        if not kept or option.cost < kept[-1].cost:
            kept.append(option)
    return kept


@dataclass(frozen=True)
class _Problem:
    """The knapsack problem of n tensors with m choices each, sorted by size.

    A tensor with fewer choices repeats its smallest one.

    Attributes:
        sizes: [n, m] sizes in bytes.
        costs: [n, m] costs.
        budget: largest total size in bytes.
    """

    sizes: IndexArray
    costs: DoubleArray
    budget: int

    @classmethod
    def build(cls, useful: list[list[Choice]], budget: int) -> "_Problem":
        width = max(map(len, useful), default=1)
        padded = [options + options[:1] * (width - len(options)) for options in useful]
        shape = (len(padded), width)
        sizes = np.array([[o.size_bytes for o in row] for row in padded], np.int64)
        costs = np.array([[o.cost for o in row] for row in padded], np.float64)
        return cls(sizes.reshape(shape), costs.reshape(shape), budget)

    def measure(self, picked: IndexArray) -> tuple[int, float]:
        """Return the total size and the total cost of an assignment [n]."""
        rows = np.arange(len(picked))
        return int(self.sizes[rows, picked].sum()), float(self.costs[rows, picked].sum())


def _find_multiplier(problem: _Problem) -> float:
    """Find the Lagrange multiplier: the lowest price per byte at which the assignment fits.

    A tensor's best choice changes only at prices at which two of its choices cost the same.
    """
    saved = problem.costs[:, :, None] - problem.costs[:, None, :]
    spent = problem.sizes[:, None, :] - problem.sizes[:, :, None]
    is_trade = (spent > 0) & (saved > 0)
    prices = np.unique(np.concatenate([[0.0], saved[is_trade] / spent[is_trade]]))
    # At twice the last price every tensor takes its smallest choice, whatever rounding does.
    prices = np.append(prices, 2 * prices[-1])
    low, high = 0, len(prices) - 1
    while low < high:
        middle = (low + high) // 2
        picked = _pick_at_price(problem, float(prices[middle]))
        if problem.measure(picked)[0] <= problem.budget:
            high = middle
        else:
            low = middle + 1
    return float(prices[low])


def _pick_at_price(problem: _Problem, price: float) -> IndexArray:
    """Return the best choice [n] of each tensor at a price per byte, the smaller one if equal."""
    picked: IndexArray = np.argmin(problem.costs + price * problem.sizes, axis=1)
    return picked


def _fill(problem: _Problem, picked: IndexArray) -> IndexArray:
    """Improve a feasible assignment [n] by the best change that fits, until none does."""
    rows = np.arange(len(picked))
    picked = picked.copy()
    while True:
        room = problem.budget - problem.measure(picked)[0]
        saved = problem.costs[rows, picked][:, None] - problem.costs
        fits = problem.sizes - problem.sizes[rows, picked][:, None] <= room
        saved = np.where(fits, saved, 0)
        if saved.max(initial=0) <= 0:
            return picked
        row, choice = np.unravel_index(int(saved.argmax()), saved.shape)
        picked[row] = choice


def _search(problem: _Problem, price: float) -> IndexArray:
    """Extend partial assignments tensor by tensor, and drop those that cannot become the best.

    A partial assignment is dropped if another one is neither larger nor costlier. It is also
    dropped if its lower bound, which is the Lagrangian relaxation at `price`, exceeds the cost of a
    known assignment.
    """
    known = _fill(problem, _pick_at_price(problem, price))
    largest = np.abs(problem.costs).max(axis=1) + price * problem.sizes.max(axis=1)
    ceiling = problem.measure(known)[1] + _ROUNDING * float(largest.sum())
    rest_bytes = _sum_after(problem.sizes.min(axis=1))
    rest_costs = _sum_after((problem.costs + price * problem.sizes).min(axis=1))
    sizes, costs = np.zeros(1, np.int64), np.zeros(1)
    steps: list[IndexArray] = []
    for index in range(len(known)):
        sizes = np.add.outer(sizes, problem.sizes[index]).ravel()
        costs = np.add.outer(costs, problem.costs[index]).ravel()
        left = problem.budget - sizes
        bounds = costs + (rest_costs[index] - price * left)
        kept = np.flatnonzero((left >= rest_bytes[index]) & (bounds <= ceiling))
        kept = kept[_find_undominated(sizes[kept], costs[kept])]
        kept = kept[_thin_out(sizes[kept], bounds[kept])]
        if not len(kept):  # `_thin_out` has dropped all that lead to the best assignment
            return known
        sizes, costs = sizes[kept], costs[kept]
        steps.append(kept)
    found = _trace_back(steps, problem.sizes.shape[1])
    return min(_fill(problem, found), known, key=lambda picked: problem.measure(picked)[::-1])


def _sum_after(terms: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return, for each of n terms, the sum of all later terms, [n]."""
    totals: npt.NDArray[Any] = terms[::-1].cumsum()[::-1] - terms
    return totals


def _find_undominated(sizes: IndexArray, costs: DoubleArray) -> IndexArray:
    """Return the indices of the Pareto-optimal states, sorted by size."""
    order: IndexArray = np.lexsort((costs, sizes))
    least = np.minimum.accumulate(costs[order])
    is_better: BoolArray = np.append(True, least[1:] < least[:-1])
    return order[is_better[: len(order)]]


def _thin_out(sizes: IndexArray, bounds: DoubleArray) -> IndexArray:
    """Return the indices of at most `_MOST_STATES` states.

    The sizes are cut into equal ranges, and the state with the least bound stays in each.

    Args:
        sizes: [s] sizes in rising order.
        bounds: [s] lower bounds of the total cost.
    """
    if len(sizes) <= _MOST_STATES:
        return np.arange(len(sizes))
    ranges = (sizes - sizes[0]) * (_MOST_STATES - 1) // (sizes[-1] - sizes[0])
    order: IndexArray = np.lexsort((bounds, ranges))
    is_first: BoolArray = np.append(True, np.diff(ranges[order]) > 0)
    return order[is_first]


def _trace_back(steps: list[IndexArray], width: int) -> IndexArray:
    """Return the assignment [n] of the last state, which has the least cost."""
    picked = np.zeros(len(steps), np.int64)
    state = -1
    for index in reversed(range(len(steps))):
        state, picked[index] = divmod(int(steps[index][state]), width)
    return picked
