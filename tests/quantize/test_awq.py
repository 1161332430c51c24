"""AWQ's column scales: against naive loops in float64, and by output error on inputs not seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_quantize import FloatArray, QuantizationError, Scheme, SchemeError, dequantize
from glm_quantize.methods import awq
from glm_quantize.methods.awq import search_column_scales
from glm_quantize.methods.rtn import round_to_nearest
from glm_quantize.methods.rtn_search import search_scales
from support.weights import draw_weight

SCHEMES = [Scheme(bits, 32, is_symmetric) for bits in (2, 4, 8) for is_symmetric in (False, True)]
each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)


def draw_inputs(count: int, inputs: int, seed: int) -> FloatArray:
    """Correlated inputs whose channels differ, 1 in 32 of them twenty times as large as the rest.

    The seed is of the draws; what they are drawn from depends on `inputs` alone.
    """
    source = np.random.default_rng(99)
    mixing = source.normal(size=(inputs // 4, inputs))
    sizes = np.exp(0.5 * source.normal(size=inputs))
    sizes[source.permutation(inputs)[: inputs // 32]] *= 20
    draws = np.random.default_rng(seed)
    common = draws.normal(size=(count, inputs // 4)) @ mixing / np.sqrt(inputs // 4)
    return ((common + 0.5 * draws.normal(size=(count, inputs))) * sizes).astype(np.float32)


def naive_round(values: list[float], bits: int, is_symmetric: bool) -> list[float]:
    """One block to nearest, from the definitions of the two conventions."""
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    if is_symmetric:
        scale, zero = -max(values, key=abs) / middle, middle
    else:
        low, high = min(*values, 0.0), max(*values, 0.0)
        scale = (high - low) / top
        zero = min(max(round(-low / scale), 0), top)
    return [(min(max(round(w / scale) + zero, 0), top) - zero) * scale for w in values]


def naive_scales(samples: FloatArray, shared: list[int], alpha: float) -> list[float]:
    """Eq. 4 with the authors' normalisation; channels of one number get their mean magnitude."""
    magnitudes = [sum(abs(float(x)) for x in column) / len(column) for column in samples.T]
    powers = []
    for number in shared:
        members = [m for m, of in zip(magnitudes, shared, strict=True) if of == number]
        powers.append((sum(members) / len(members)) ** alpha)
    return [power / (max(powers) * min(powers)) ** 0.5 for power in powers]


def naive_error(
    weight: FloatArray, scheme: Scheme, samples: FloatArray, scales: list[float]
) -> float:
    """Eq. 4's loss, output by output."""
    total = 0.0
    for row in weight.astype(np.float64):
        rounded: list[float] = []
        scaled = [w * s for w, s in zip(row, scales, strict=True)]
        for start in range(0, len(scaled), scheme.block_size):
            block = scaled[start : start + scheme.block_size]
            rounded += naive_round(block, scheme.bits, scheme.is_symmetric)
        for x in samples.astype(np.float64):
            pairs = zip(rounded, scales, row, x, strict=True)
            total += sum((q / s - w) * value for q, s, w, value in pairs) ** 2
    return total


def naive_search(
    weight: FloatArray, scheme: Scheme, samples: FloatArray, shared: list[int]
) -> tuple[float, list[float]]:
    """The best alpha and its scales."""
    found = []
    for step in range(20):
        scales = naive_scales(samples, shared, step / 20)
        found.append((naive_error(weight, scheme, samples, scales), step / 20, scales))
    _, alpha, scales = min(found)
    return alpha, scales


@each_scheme
@pytest.mark.parametrize("is_shared", [False, True])
def test_finds_what_naive_loops_find(
    scheme: Scheme, is_shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight rows, three at a time.

    Different alphas differ by 5 % in the extreme scales, so 1e-5 says that alpha is the same.
    """
    monkeypatch.setattr(awq, "_PIECE_WEIGHTS", 3 * 64)
    weight, samples = draw_weight(8, 64), draw_inputs(12, 64, seed=2)
    shared = np.arange(64) // 3 if is_shared else None
    alpha, expected = naive_search(
        weight, scheme, samples, list(range(64)) if shared is None else shared.tolist()
    )
    assert alpha > 0
    scales = search_column_scales(weight, scheme, samples, shared)
    assert scales.dtype == np.float32
    np.testing.assert_allclose(scales, expected, rtol=1e-5)


def output_error(weight: FloatArray, rounded: FloatArray, inputs: FloatArray) -> float:
    change = rounded.astype(np.float64) - weight
    return float(np.square(change @ inputs.T.astype(np.float64)).sum())


@each_scheme
def test_beats_rounding_on_inputs_not_seen(scheme: Scheme) -> None:
    """By 5 dB at least, whichever method rounds; 6.5 to 9.6 dB were seen."""
    weight = draw_weight(64, 512)
    seen, unseen = draw_inputs(512, 512, seed=3), draw_inputs(512, 512, seed=4)
    scales = search_column_scales(weight, scheme, seen)
    mean_squares = np.square(seen / scales).mean(axis=0)
    plain = output_error(weight, dequantize(round_to_nearest(weight, scheme)), unseen)
    for rows in (
        round_to_nearest(weight * scales, scheme),
        search_scales(weight * scales, scheme, mean_squares),
    ):
        folded = output_error(weight, dequantize(rows) / scales, unseen)
        assert 10 * np.log10(plain / folded) > 5


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    scheme=st.sampled_from(SCHEMES),
    seed=st.integers(0, 1000),
    spread=st.floats(0, 4),
    count=st.integers(1, 9),
)
def test_never_loses_on_the_samples(scheme: Scheme, seed: int, spread: float, count: int) -> None:
    """Sums of 96 float32 products are off by 1e-5 at most, their squares by twice that."""
    generator = np.random.default_rng(seed)
    weight = draw_weight(5, 96, seed)
    sizes = np.exp(spread * generator.normal(size=96))
    samples = (generator.normal(size=(count, 96)) * sizes).astype(np.float32)
    scales = search_column_scales(weight, scheme, samples)
    folded = dequantize(round_to_nearest(weight * scales, scheme)) / scales
    plain = dequantize(round_to_nearest(weight, scheme))
    assert output_error(weight, folded, samples) <= output_error(weight, plain, samples) * 1.0001


def test_folds_nothing_where_nothing_is_gained() -> None:
    samples = np.where(np.random.default_rng(5).normal(size=(40, 64)) > 0, 3, -3)
    scales = search_column_scales(draw_weight(4, 64), Scheme(4, 32, True), samples.astype("f4"))
    np.testing.assert_array_equal(scales, np.ones(64, dtype=np.float32))


def test_shared_channels_get_the_same_scale() -> None:
    """Two heads read each value: without `shared` their scales differ."""
    weight, samples = draw_weight(16, 128), draw_inputs(64, 128, seed=6)
    scheme, shared = Scheme(4, 32, False), np.tile(np.arange(64), 2) + 1000
    scales = search_column_scales(weight, scheme, samples, shared)
    np.testing.assert_array_equal(scales[:64], scales[64:])
    assert scales.max() > 1.5 * scales.min()
    alone = search_column_scales(weight, scheme, samples)
    assert not np.allclose(alone[:64], alone[64:], rtol=0.1)


@pytest.mark.parametrize("dead", [slice(0, 8), slice(0, 64)], ids=["some", "all"])
@pytest.mark.parametrize("size", [1e-38, 1e-10, 1.0, 1e10])
def test_dead_channels_keep_finite_positive_scales(dead: slice, size: float) -> None:
    samples = (draw_inputs(32, 64, seed=7) * np.float32(size)).astype(np.float32)
    samples[:, dead] = 0
    scales = search_column_scales(draw_weight(4, 64), Scheme(4, 32, False), samples)
    assert np.isfinite(scales).all() and (scales > 0).all()
    assert scales.max() / scales.min() <= 1e4 * (1 + 1e-6)
    np.testing.assert_allclose(scales.max() * scales.min(), 1, rtol=1e-5)


def test_looks_at_a_bounded_share() -> None:
    """Rows and samples that are not looked at may hold anything, NaN too."""
    weight, samples = draw_weight(5000, 32), draw_inputs(1300, 32, seed=8)
    scheme = Scheme(4, 32, False)
    rows = [i * 5000 // 2048 for i in range(2048)]
    tokens = [i * 1300 // 512 for i in range(512)]
    expected = search_column_scales(weight[rows], scheme, samples[tokens])
    weight[np.setdiff1d(np.arange(5000), rows)] = np.nan
    samples[np.setdiff1d(np.arange(1300), tokens)] = np.nan
    np.testing.assert_array_equal(search_column_scales(weight, scheme, samples), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_not_a_number(value: float) -> None:
    weight, samples = draw_weight(2, 32), draw_inputs(4, 32, seed=9)
    broken = samples.copy()
    broken[3, 5] = value
    with pytest.raises(QuantizationError, match="samples of the weight's inputs hold NaN or Inf"):
        search_column_scales(weight, SCHEMES[0], broken)
    weight[1, 7] = value
    with pytest.raises(QuantizationError, match="the weight holds NaN or Inf"):
        search_column_scales(weight, SCHEMES[0], samples)


@pytest.mark.parametrize("shape", [(3, 32), (0, 64), (64,)])
def test_refuses_samples_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(QuantizationError, match=r"samples are \[.*rows have 64 inputs"):
        search_column_scales(draw_weight(2, 64), SCHEMES[0], np.ones(shape, dtype=np.float32))


def test_refuses_shared_channels_of_another_shape() -> None:
    samples = np.ones((3, 64), dtype=np.float32)
    with pytest.raises(QuantizationError, match=r"channels are \[32\].*rows have 64 inputs"):
        search_column_scales(draw_weight(2, 64), SCHEMES[0], samples, np.arange(32))


def test_refuses_a_block_size_that_does_not_divide() -> None:
    samples = np.ones((3, 48), dtype=np.float32)
    with pytest.raises(SchemeError, match="row of 48 weights does not divide into blocks of 32"):
        search_column_scales(draw_weight(2, 48), SCHEMES[0], samples)
