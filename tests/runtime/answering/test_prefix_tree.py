"""The tree against a dictionary of all prefixes, which is what a radix tree saves."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_runtime.answering.prefix_tree import SEGMENT_TOKENS, PrefixTree
from glm_runtime.arrays import CacheArray

TOKEN_BYTES = 2 * 3 * 1 * 4  # of values [2, 3, n, 1] float32
Tokens = tuple[int, ...]


def compute_values(tokens: Tokens, start: int, stop: int) -> CacheArray:
    """Values that depend on all tokens up to each position, as those of attention do."""
    rows = [[hash((tokens[: end + 1], i)) % 10**6 for i in range(6)] for end in range(start, stop)]
    values: CacheArray = np.array(rows, np.float32).T.reshape(2, 3, stop - start, 1)
    return values


def add(tree: PrefixTree, tokens: Tokens, namespace: str = "") -> None:
    tree.insert(tokens, lambda start, stop: compute_values(tokens, start, stop), namespace)


def check(tree: PrefixTree, tokens: Tokens, namespace: str = "") -> int:
    """The values of the longest prefix are right; return its length."""
    length = tree.measure(tokens, namespace)
    parts = list(tree.read(tokens, namespace))
    found = np.concatenate([np.zeros((2, 3, 0, 1)), *parts], axis=2)
    np.testing.assert_array_equal(found, compute_values(tokens, 0, length))
    return length


def count_bytes(tree: PrefixTree) -> int:
    return sum(node.values.nbytes for node in tree._by_use if node.values is not None)


sequences = st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple)
operations = st.lists(st.tuples(st.sampled_from(("add", "find")), st.sampled_from("ab"), sequences))


@given(operations)
def test_without_a_limit_every_prefix_is_found(operations: list[tuple[str, str, Tokens]]):
    tree, known = PrefixTree(TOKEN_BYTES, 10**9), {("a", ()), ("b", ())}
    for operation, namespace, tokens in operations:
        if operation == "add":
            add(tree, tokens, namespace)
            known |= {(namespace, tokens[:end]) for end in range(len(tokens) + 1)}
        longest = max(end for end in range(len(tokens) + 1) if (namespace, tokens[:end]) in known)
        assert check(tree, tokens, namespace) == longest
    assert tree.size_bytes == count_bytes(tree) == TOKEN_BYTES * (len(known) - 2)


@given(operations, st.integers(0, 40))
def test_within_a_limit_what_is_found_is_right(
    operations: list[tuple[str, str, Tokens]], limit: int
):
    tree, known = PrefixTree(TOKEN_BYTES, limit * TOKEN_BYTES), {("a", ()), ("b", ())}
    for operation, namespace, tokens in operations:
        if operation == "add":
            add(tree, tokens, namespace)
            known |= {(namespace, tokens[:end]) for end in range(len(tokens) + 1)}
            assert check(tree, tokens, namespace) in {len(tokens), *range(len(tokens))}
        assert (namespace, tokens[: check(tree, tokens, namespace)]) in known
        assert tree.size_bytes == count_bytes(tree) <= limit * TOKEN_BYTES
        assert all(root.children for root in tree._roots.values())


def test_the_least_recently_used_leaf_is_evicted_first():
    tree = PrefixTree(TOKEN_BYTES, 30 * TOKEN_BYTES)
    system = (1,) * 10
    first, second, third = (*system, 2, *[5] * 9), (*system, 3, *[6] * 9), (*system, 4, *[7] * 9)
    add(tree, first)
    add(tree, second)
    check(tree, first)
    add(tree, third)
    assert [check(tree, tokens) for tokens in (first, second, third)] == [20, 10, 20]


def test_a_long_sequence_is_kept_as_far_as_it_fits_and_evicted_from_its_end():
    tree = PrefixTree(TOKEN_BYTES, 2 * SEGMENT_TOKENS * TOKEN_BYTES)
    tokens = tuple(range(3 * SEGMENT_TOKENS))
    add(tree, tokens)
    assert check(tree, tokens) == tree.measure(tokens) == 2 * SEGMENT_TOKENS
    add(tree, (-1, -2))
    assert check(tree, tokens) == SEGMENT_TOKENS
    assert check(tree, (-1, -2)) == 2


def test_a_smaller_limit_evicts_and_a_larger_one_keeps():
    tree = PrefixTree(TOKEN_BYTES, 100 * TOKEN_BYTES)
    for first in range(10):
        add(tree, (first, *[50] * 9))
    tree.resize(35 * TOKEN_BYTES)
    assert [check(tree, (first, *[50] * 9)) for first in range(10)] == [0] * 7 + [10] * 3
    tree.resize(100 * TOKEN_BYTES)
    assert tree.size_bytes == 30 * TOKEN_BYTES
    tree.resize(0)
    assert tree.size_bytes == 0 and not tree._roots


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_asked_for_only_where_the_tree_holds_nothing(seed: int):
    tree, source = PrefixTree(TOKEN_BYTES, 10**9), random.Random(seed)
    copied = 0

    def copy(tokens: Tokens, start: int, stop: int) -> CacheArray:
        nonlocal copied
        copied += stop - start
        return compute_values(tokens, start, stop)

    known: set[Tokens] = set()
    for _ in range(50):
        tokens = tuple(source.choices((0, 1), k=source.randrange(1, 600)))
        tree.insert(tokens, lambda start, stop, tokens=tokens: copy(tokens, start, stop))
        known |= {tokens[:end] for end in range(1, len(tokens) + 1)}
        assert copied == len(known)


def test_a_sequence_that_grows_takes_the_place_of_others_and_not_of_itself():
    """Its beginning was the least recently used part, until it was continued."""
    tree = PrefixTree(TOKEN_BYTES, 20 * TOKEN_BYTES)
    begun, other = (1,) * 10, (2,) * 10
    add(tree, begun)
    add(tree, other)
    add(tree, (*begun, 3, 4))
    assert check(tree, (*begun, 3, 4)) == 12 and check(tree, other) == 0
