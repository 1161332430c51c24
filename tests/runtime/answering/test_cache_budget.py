"""The shape of the buffers: always large enough, never beyond the limit, seldom changed."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_runtime import PromptError
from glm_runtime.answering.cache_budget import BufferShape, CacheBudget
from glm_runtime.folder.manifest import ModelEntry

ENTRY = ModelEntry(
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    hidden_size=32,
    vocab_size=64,
    tokenizer_vocab_size=64,
    context_length=3000,
    cache_dtype="float16",
    eos_token_ids=(),
    pad_token_id=None,
)
TOKEN_BYTES = 3 * 2 * 2 * 8 * 2  # layers, keys and values, heads, head size, float16
LIMITS = st.one_of(st.none(), st.integers(1, 20_000))
STEPS = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 3000), st.booleans()), max_size=20)


@given(LIMITS, STEPS)
def test_a_plan_is_large_enough_and_within_the_limit(
    tokens: int | None, steps: list[tuple[int, int, bool]]
):
    limit = None if tokens is None else tokens * TOKEN_BYTES
    budget, shape = CacheBudget(ENTRY, 8, limit), BufferShape(0, 0)
    for rows, length, is_trimmed in steps:
        plan = budget.plan(rows, length, shape)
        is_possible = tokens is None or rows * length <= tokens
        assert (plan is not None) == is_possible
        if plan is None:
            continue
        assert rows <= plan.num_slots <= 8 and length <= plan.capacity <= 3000
        assert tokens is None or plan.num_slots * plan.capacity <= tokens
        assert budget.plan(rows, length, plan) == plan
        shape = plan
        if is_trimmed:
            trimmed = budget.trim(rows, length, shape)
            assert budget.measure(trimmed) <= budget.measure(shape)
            assert rows <= trimmed.num_slots and length <= trimmed.capacity
            shape = trimmed


def test_rows_are_moved_seldom_while_a_half_of_the_memory_is_free():
    budget, shape, changes = CacheBudget(ENTRY, 8, 100_000 * TOKEN_BYTES), BufferShape(0, 0), 0
    for rows in range(1, 9):
        plan = budget.plan(rows, 500, shape)
        assert plan is not None
        changes += plan != shape
        shape = plan
    assert shape == BufferShape(8, 512) and changes == 4
    for length in range(500, 2000):
        plan = budget.plan(8, length, shape)
        assert plan is not None
        changes += plan != shape
        shape = plan
    assert changes <= 4 + 8
    assert budget.trim(8, 500, shape) == BufferShape(8, 512)
    assert budget.trim(0, 0, shape) == BufferShape(0, 0)


def test_spare_slots_do_not_take_the_memory_of_kept_prefixes():
    budget = CacheBudget(ENTRY, 8, 10_000 * TOKEN_BYTES)
    assert budget.plan(5, 1024, BufferShape(4, 1024)) == BufferShape(5, 1024)


def test_a_buffer_at_the_limit_takes_what_is_left():
    """Otherwise it would be copied for every token."""
    budget = CacheBudget(ENTRY, 8, 1000 * TOKEN_BYTES)
    assert budget.plan(2, 490, BufferShape(2, 256)) == BufferShape(2, 500)
    assert budget.plan(2, 501, BufferShape(2, 500)) is None


def test_what_does_not_fit_alone_is_refused():
    budget = CacheBudget(ENTRY, 8, 1000 * TOKEN_BYTES)
    assert budget.longest == 1000
    budget.check(1000)
    with pytest.raises(PromptError, match=r"1001 tokens, which need 0\.00 GB .* holds 1000 tokens"):
        budget.check(1001)
    with pytest.raises(PromptError, match="the model's context length is 3000"):
        budget.check(3001)
    small = dataclasses.replace(ENTRY, cache_dtype="int8")
    assert CacheBudget(small, 1, 1000 * TOKEN_BYTES).longest == 2000


def test_shapes_at_their_bounds():
    budget = CacheBudget(ENTRY, 8, 10_000 * TOKEN_BYTES)
    # No slot is added where only the rows grow, and a buffer halves as soon as it can.
    assert budget.plan(4, 600, BufferShape(4, 512)) == BufferShape(4, 768)
    assert budget.trim(1, 256, BufferShape(1, 512)) == BufferShape(1, 256)
    assert budget.trim_alone(300, BufferShape(4, 600)) == BufferShape(1, 512)
    assert budget.trim_alone(300, BufferShape(4, 310)) == BufferShape(1, 310)
    assert budget.measure(BufferShape(2, 100)) == 200 * TOKEN_BYTES
    # Memory that is just enough is used: for spare slots, and for a buffer that grows.
    half = CacheBudget(ENTRY, 8, 2 * 4 * 256 * TOKEN_BYTES)
    assert half.plan(3, 256, BufferShape(2, 256)) == BufferShape(4, 256)
    full = CacheBudget(ENTRY, 8, 2 * 2560 * TOKEN_BYTES)
    assert full.plan(2, 2049, BufferShape(2, 2048)) == BufferShape(2, 2560)


def test_a_refusal_names_the_memory_in_gigabytes():
    entry = dataclasses.replace(ENTRY, num_layers=100, num_kv_heads=50, head_dim=100)
    budget = CacheBudget(entry, 1, 10**9)
    with pytest.raises(PromptError, match=r"1001 tokens, which need 2\.00 GB of KV cache"):
        budget.check(1001)
