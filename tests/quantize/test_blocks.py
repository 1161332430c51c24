"""Blocks as columns: rounding against a simple loop, and weights that are cut and joined again."""

import numpy as np
import pytest

from glm_quantize import QuantizedRows, Scheme, SchemeError
from glm_quantize.blocks import (
    BestBlocks,
    BlockRounder,
    block_parameters,
    choose_blocks,
    join_blocks,
    split_blocks,
    sum_inputs,
)

SYMMETRIC, ASYMMETRIC = Scheme(4, 32, is_symmetric=True), Scheme(4, 32, is_symmetric=False)
PIECE = (1 << 18) // 32  # blocks of 32 weights in one piece
TINY = np.finfo(np.float32).tiny


def make_rows(scheme: Scheme, count: int, seed: int = 0) -> QuantizedRows:
    """Random blocks, one in each row."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 16, (count, 32), dtype=np.uint8)
    zeros = random.integers(0, 16, (count, 1), dtype=np.uint8)
    scales = random.normal(size=(count, 1)).astype(np.float32)
    return QuantizedRows(scheme, codes, scales, None if scheme.is_symmetric else zeros)


def test_the_parameters_of_a_symmetric_scheme_have_its_zero_point() -> None:
    scales, zeros = block_parameters(make_rows(SYMMETRIC, 3))
    assert scales.shape == (3,) and zeros.tolist() == [8, 8, 8] and zeros.dtype == np.float32
    rows = make_rows(ASYMMETRIC, 3)
    assert rows.zero_points is not None
    found = block_parameters(rows)[1]
    assert found.tolist() == rows.zero_points[:, 0].tolist() and found.dtype == np.float32


def test_only_a_smaller_error_of_a_usable_scale_is_kept() -> None:
    """Of equal errors the first stays; NaN and scales that processors read as zero are ignored."""
    best = BestBlocks.start(make_rows(SYMMETRIC, 6))
    assert np.isinf(best.errors).all()
    ones = np.ones(6, np.float32)
    best.offer(ones, ones, ones)
    errors = np.array([0.5, 1.0, 2.0, np.nan, 0.5, 0.5], np.float32)
    scales = np.array([-TINY, 2, 2, 2, TINY / 2, -TINY / 2], np.float32)
    best.offer(errors, scales, np.full(6, 3, np.float32))
    assert best.errors.tolist() == [0.5, 1, 1, 1, 1, 1]
    assert best.scales.tolist() == [-TINY, 1, 1, 1, 1, 1]
    assert best.zero_points.tolist() == [3, 1, 1, 1, 1, 1]


def test_the_start_does_not_change_what_it_starts_from() -> None:
    rows = make_rows(ASYMMETRIC, 2)
    before = rows.scales.copy()
    BestBlocks.start(rows).offer(*(np.full(2, value, np.float32) for value in (0, 9, 9)))
    np.testing.assert_array_equal(rows.scales, before)


@pytest.mark.parametrize("scheme", [SYMMETRIC, ASYMMETRIC])
def test_rounding_is_that_of_a_simple_loop(scheme: Scheme) -> None:
    """Scales are powers of two, so that every product is exact in float32 too."""
    random = np.random.default_rng(1)
    weights = (random.integers(-200, 200, (32, 5)) / 8).astype(np.float32)
    scales = np.array([1, -2, 0.5, 4, -0.25], np.float32)
    zeros = np.array([8, 0, 15, 3, 7], np.float32)
    rounder = BlockRounder(weights, scheme.max_code)
    rounder.round(scales, zeros)
    for column in range(5):
        for row in range(32):
            exact = float(weights[row, column]) / float(scales[column]) + float(zeros[column])
            code = min(max(round(exact), 0), 15)
            assert rounder.codes[row, column] == code
            assert rounder.residuals[row, column] == exact - code
    expected = rounder.codes.T.copy()
    rows = rounder.finish(BestBlocks(np.zeros(5, np.float32), scales, zeros), scheme)
    assert rows.scheme is scheme and rows.codes.dtype == np.uint8
    np.testing.assert_array_equal(rows.codes, expected)
    assert rows.scales.tolist() == scales[:, None].tolist()
    stored = None if rows.zero_points is None else rows.zero_points[:, 0].tolist()
    assert stored == (None if scheme.is_symmetric else zeros.tolist())


@pytest.mark.parametrize("blocks", [1, PIECE - 4, PIECE, PIECE + 4, 2 * PIECE + 8])
def test_pieces_are_whole_blocks_that_fit_the_caches(blocks: int) -> None:
    weight = np.arange(blocks * 32, dtype=np.float32).reshape(1, -1)
    pieces = list(split_blocks(weight, ASYMMETRIC))
    assert [start for start, _ in pieces] == list(range(0, blocks, PIECE))
    assert all(len(piece) == PIECE for _, piece in pieces[:-1])
    np.testing.assert_array_equal(np.concatenate([piece for _, piece in pieces]).ravel(), weight[0])


def test_a_row_that_is_not_whole_blocks_is_refused() -> None:
    with pytest.raises(SchemeError, match="a row of 48 weights does not divide into blocks of 32"):
        next(split_blocks(np.zeros((4, 48), np.float32), SYMMETRIC))


@pytest.mark.parametrize("scheme", [SYMMETRIC, ASYMMETRIC])
def test_joined_pieces_are_the_rows_in_order(scheme: Scheme) -> None:
    pieces = [make_rows(scheme, count, count) for count in (4, 2)]
    joined = join_blocks(pieces, 3)
    assert joined.scheme is scheme
    for name, width in (("codes", 64), ("scales", 2), ("zero_points", 2)):
        parts = [getattr(piece, name) for piece in pieces]
        if parts[0] is None:
            assert name == "zero_points" and joined.zero_points is None and scheme.is_symmetric
            continue
        assert getattr(joined, name).shape == (3, width)
        np.testing.assert_array_equal(getattr(joined, name).ravel(), np.concatenate(parts).ravel())


@pytest.mark.parametrize("scheme", [SYMMETRIC, ASYMMETRIC])
def test_each_row_is_chosen_whole(scheme: Scheme) -> None:
    first, second = make_rows(scheme, 4, 1), make_rows(scheme, 4, 2)
    is_first = np.array([True, False, False, True])
    chosen = choose_blocks(is_first, first, second)
    for row, source in enumerate([first, second, second, first]):
        np.testing.assert_array_equal(chosen.codes[row], source.codes[row])
        assert chosen.scales[row] == source.scales[row]
        if not scheme.is_symmetric:
            assert chosen.zero_points is not None and source.zero_points is not None
            assert chosen.zero_points[row] == source.zero_points[row]
    assert (chosen.zero_points is None) == scheme.is_symmetric


@pytest.mark.parametrize("inputs", [1, 2, 32, 256])
def test_a_sum_adds_pairs_and_does_not_depend_on_the_cut(inputs: int) -> None:
    """An order that depended on the cut would give other files on machines with other caches."""
    terms = np.random.default_rng(inputs).normal(size=(inputs, 7)).astype(np.float32)

    def add(values: np.ndarray) -> np.float32:
        half = len(values) // 2
        return values[0] if not half else add(values[:half] + values[half:])

    expected = [add(terms[:, column]) for column in range(7)]
    assert sum_inputs(terms[:, :3].copy()).tolist() == [float(one) for one in expected[:3]]
    assert sum_inputs(terms).tolist() == [float(one) for one in expected]
