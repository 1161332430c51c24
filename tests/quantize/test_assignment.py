"""Assignments under a budget: brute force on small problems, the Lagrangian bound on large ones."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_quantize import QuantizationError, Scheme, assignment
from glm_quantize.assignment import BudgetError, Choice, assign_schemes

SCHEMES = [
    Scheme(bits, block, sym)
    for bits, blocks in ((2, (32, 64)), (4, (32, 64, 128, 256)), (8, (32, 64, 128, 256)))
    for block in blocks
    for sym in (True, False)
]
Problem = dict[str, list[Choice]]


def choose(*options: tuple[int, float]) -> list[Choice]:
    """Choices of these sizes and costs; the schemes only tell them apart."""
    return [Choice(scheme, *option) for scheme, option in zip(SCHEMES, options, strict=False)]


def measure(assigned: dict[str, Choice]) -> tuple[float, int]:
    return (
        sum(choice.cost for choice in assigned.values()),
        sum(choice.size_bytes for choice in assigned.values()),
    )


def brute_force(problem: Problem, budget: int) -> tuple[float, int] | None:
    """The least cost, and the least size that has it; None: nothing fits."""
    totals = [
        measure(dict(enumerate(picked)))  # type: ignore[arg-type]
        for picked in product(*problem.values())
    ]
    return min((total for total in totals if total[1] <= budget), default=None)


def bound_cost(problem: Problem, budget: int) -> float:
    """What no assignment beats: the greatest Lagrangian bound over prices a factor 1.01 apart."""
    sizes = np.array([[c.size_bytes for c in options] for options in problem.values()])
    costs = np.array([[c.cost for c in options] for options in problem.values()])
    prices = 1.01 ** np.arange(-5000, 0)
    bounds = [(costs + price * sizes).min(axis=1).sum() - price * budget for price in prices]
    return float(max(bounds))


def draw_model(layers: int, seed: int) -> tuple[Problem, int]:
    """Candidates of a large decoder, with costs over decades, and its number of weights."""
    generator = np.random.default_rng(seed)
    shapes = {
        f"layers.{index}.{name}": shape
        for index in range(layers)
        for name, shape in (
            ("qkv_proj", (8192, 6144)),
            ("o_proj", (6144, 6144)),
            ("gate_up_proj", (46080, 6144)),
            ("down_proj", (6144, 23040)),
        )
    }
    shapes |= dict.fromkeys(("embed_tokens", "lm_head"), (151552, 6144))
    problem = {}
    for name, (rows, inputs) in shapes.items():
        base = np.exp(generator.normal(-9, 1.5))
        problem[name] = [
            Choice(
                scheme,
                rows * (inputs * scheme.bits // 8 + inputs // scheme.block_size * 4),
                base * 4.0 ** (4 - scheme.bits) * scheme.block_size**0.3 * generator.uniform(1, 2),
            )
            for scheme in SCHEMES
        ]
    return problem, sum(rows * inputs for rows, inputs in shapes.values())


PROBLEMS = st.dictionaries(
    st.text(min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=5).map(
        lambda options: choose(*options)
    ),
    max_size=4,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(problem=PROBLEMS, budget=st.integers(0, 150))
def test_whole_numbers_are_solved_exactly(problem: Problem, budget: int) -> None:
    """Whole numbers make ties, which the smaller size must win."""
    expected = brute_force(problem, budget)
    if expected is None:
        smallest = sum(min(c.size_bytes for c in options) for options in problem.values())
        assert smallest > budget
        with pytest.raises(BudgetError, match=f"takes {smallest} bytes"):
            assign_schemes(problem, budget)
        return
    assigned = assign_schemes(problem, budget)
    assert list(assigned) == list(problem)
    assert all(assigned[name] in options for name, options in problem.items())
    assert measure(assigned) == expected


@pytest.mark.parametrize("seed", range(30))
def test_costs_over_decades_are_solved_exactly(seed: int) -> None:
    generator = np.random.default_rng(seed)
    problem = {
        str(index): choose(
            *((int(generator.integers(1, 10**9)), np.exp(generator.normal(0, 4))) for _ in range(4))
        )
        for index in range(5)
    }
    sizes = [[choice.size_bytes for choice in options] for options in problem.values()]
    least, most = sum(map(min, sizes)), sum(map(max, sizes))
    for share in (0.0, 0.05, 0.3, 0.6, 1.0):
        budget = int(least + share * (most - least))
        expected = brute_force(problem, budget)
        assert expected is not None
        assert measure(assign_schemes(problem, budget))[0] == pytest.approx(expected[0], rel=1e-12)


@pytest.mark.parametrize("bits", [3.2, 4.5, 6.0])
def test_a_large_model_is_within_a_thousandth_of_the_bound(bits: float) -> None:
    problem, weights = draw_model(61, seed=4)
    budget = int(bits * weights / 8)
    cost, size = measure(assign_schemes(problem, budget))
    assert size <= budget
    assert 1 - 1e-9 <= cost / bound_cost(problem, budget) <= 1.001


def test_few_states_still_give_a_good_assignment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where states are thinned out, the outcome is still feasible and near the best."""
    problem, weights = draw_model(12, seed=5)
    budget = int(4.5 * weights / 8)
    exact = measure(assign_schemes(problem, budget))[0]
    for most in (1, 2, 16, 256):
        monkeypatch.setattr(assignment, "_MOST_STATES", most)
        assigned = assign_schemes(problem, budget)
        cost, size = measure(assigned)
        assert size <= budget and exact <= cost <= 1.1 * exact
        for name, options in problem.items():  # no single change saves anything
            now, room = assigned[name], budget - size
            fitting = [c for c in options if c.size_bytes - now.size_bytes <= room]
            assert now.cost <= min(c.cost for c in fitting)
    assert cost <= 1.001 * exact


def test_more_budget_never_costs_more() -> None:
    problem, weights = draw_model(3, seed=6)
    costs = [measure(assign_schemes(problem, weights * k // 80))[0] for k in range(30, 95)]
    assert costs == sorted(costs, reverse=True)
    cheapest = sum(min(c.cost for c in options) for options in problem.values())
    assert costs[-1] == pytest.approx(cheapest, rel=1e-12)


def test_the_same_problem_has_the_same_answer() -> None:
    problem, weights = draw_model(12, seed=7)
    first = assign_schemes(problem, weights // 2)
    assert assign_schemes(problem, weights // 2) == first
    turned = {name: options[::-1] for name, options in reversed(problem.items())}
    assert assign_schemes(turned, weights // 2) == first


def test_an_impossible_budget_names_the_smallest() -> None:
    problem = {"a": choose((100, 1.0), (60, 2.0)), "b": choose((7, 0.5))}
    with pytest.raises(BudgetError, match=r"budget is 66 bytes.*takes 67 bytes") as caught:
        assign_schemes(problem, 66)
    assert isinstance(caught.value, QuantizationError)
    assert measure(assign_schemes(problem, 67)) == (2.5, 67)
