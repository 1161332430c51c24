import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from glm_runtime.errors import GenerationError
from glm_runtime.sampling.sampler import (
    Sampler,
    draw,
    find_candidates,
    find_largest,
    select_nucleus,
    select_top,
)
from glm_runtime.sampling.settings import SamplingSettings

NAN = float("nan")
SCORES = st.floats(-40, 40, width=16)
SETTINGS = {
    "temperature": SamplingSettings(temperature=0.7),
    "top_k": SamplingSettings(top_k=40),
    "top_k of 1": SamplingSettings(top_k=1),
    "top_k above the vocabulary": SamplingSettings(top_k=10**6),
    "top_p": SamplingSettings(top_p=0.9),
    "tiny top_p": SamplingSettings(top_p=1e-6),
    "wide top_p": SamplingSettings(temperature=3, top_p=0.99),
    "min_p": SamplingSettings(min_p=0.05),
    "min_p of 1": SamplingSettings(min_p=1),
    "penalty": SamplingSettings(repetition_penalty=1.3),
    "penalty below 1": SamplingSettings(repetition_penalty=0.8, top_k=10),
    "Z1": SamplingSettings(temperature=0.6, top_p=0.95, top_k=40),
    "0414 demo": SamplingSettings(temperature=0.6, top_p=0.8, repetition_penalty=1.2),
    "all": SamplingSettings(1.4, top_k=30, top_p=0.9, min_p=0.02, repetition_penalty=1.1),
}


def reference_probabilities(
    scores: np.ndarray, settings: SamplingSettings, seen: list[int]
) -> np.ndarray:
    """What transformers draws from: its own processors, in the order of GenerationMixin."""
    processors = LogitsProcessorList()
    if settings.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.temperature != 1:
        processors.append(TemperatureLogitsWarper(float(settings.temperature)))
    if settings.top_k:
        processors.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        processors.append(TopPLogitsWarper(settings.top_p))
    if settings.min_p:
        processors.append(MinPLogitsWarper(float(settings.min_p)))
    rows = torch.from_numpy(scores.astype(np.float64))[None]
    processed = processors(torch.tensor([seen]), rows)
    return torch.softmax(processed, dim=-1)[0].numpy()


def our_probabilities(
    scores: np.ndarray, settings: SamplingSettings, seen: list[int]
) -> np.ndarray:
    sampler = Sampler(settings, scores.size, seen)
    candidates = find_candidates(sampler._penalties.apply(scores), settings)
    probabilities = np.zeros(scores.size)
    probabilities[candidates.ids] = candidates.weights
    return probabilities / probabilities.sum()


@pytest.mark.parametrize("vocab_size", [50, 5_000, 151_343])
@pytest.mark.parametrize("name", SETTINGS)
def test_probabilities_are_those_of_transformers(name: str, vocab_size: int):
    """Scores are spread like a model's; float32 against float64 stays within 1e-5."""
    scores = np.random.default_rng(vocab_size).normal(0, 4, vocab_size).astype(np.float32)
    seen = [1, 3, 3, int(scores.argmax()), int(scores.argmin())]
    expected = reference_probabilities(scores, SETTINGS[name], seen)
    found = our_probabilities(scores, SETTINGS[name], seen)
    assert np.array_equal(found > 0, expected > 1e-40)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


def test_equal_scores_at_the_limit_of_top_k_are_all_kept_as_in_transformers():
    scores = np.array([1, 3, 2, 2, 0, 2], np.float32)
    settings = SamplingSettings(top_k=2)
    np.testing.assert_allclose(
        our_probabilities(scores, settings, [0]), reference_probabilities(scores, settings, [0])
    )


def test_a_whole_seen_prompt_is_penalized_once_however_often_a_token_occurs():
    scores = np.array([2, 2, -2], np.float32)
    sampler = Sampler(SamplingSettings(repetition_penalty=2.0), 3, [0, 0, 0, 2])
    assert sampler._penalties.apply(scores).tolist() == [1, 2, -4]
    assert scores.tolist() == [2, 2, -2]  # the caller's logits stay as they are


def test_generated_tokens_are_penalized_too():
    sampler = Sampler(SamplingSettings(temperature=0, repetition_penalty=2.0), 3, [])
    scores = np.array([4, 3, 1], np.float32)
    assert [sampler.choose(scores) for _ in range(3)] == [0, 1, 0]


def test_a_token_that_was_chosen_elsewhere_is_penalized_too():
    sampler = Sampler(SamplingSettings(temperature=0, repetition_penalty=2.0), 3, [])
    sampler.accept(0)
    assert sampler.choose(np.array([4, 3, 1], np.float32)) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_forbidden_token_is_never_chosen(dtype: type, temperature: float):
    def forbid(scores: np.ndarray) -> None:
        scores[1:] = -np.inf

    logits = np.array([-9, 5, 7], dtype)
    sampler = Sampler(SamplingSettings(temperature=temperature, seed=0), 3, [])
    assert [sampler.choose(logits, forbid) for _ in range(20)] == [0] * 20
    assert logits.tolist() == [-9, 5, 7]  # the caller's logits stay as they are


@given(npst.arrays(np.float32, st.integers(1, 700), elements=SCORES), st.data())
def test_select_top_is_what_sorting_finds(values: np.ndarray, data: st.DataObject):
    count = data.draw(st.integers(1, values.size))
    last = np.sort(values)[-count]
    assert select_top(values, count).tolist() == np.flatnonzero(values >= last).tolist()


@given(st.integers(0, 1000), st.floats(0.001, 0.999), st.integers(1, 3000))
def test_select_nucleus_is_what_a_plain_loop_finds(seed: int, top_p: float, size: int):
    weights = np.random.default_rng(seed).random(size).astype(np.float32)
    expected, mass = [], 0.0
    for index in sorted(range(size), key=lambda i: (-weights[i], i)):
        if mass >= top_p * weights.sum(dtype=np.float64):
            break
        expected.append(index)
        mass += float(weights[index])
    assert select_nucleus(weights, top_p).tolist() == expected


def test_the_widest_nucleus_is_the_whole_vocabulary():
    """Rounding may keep the running sum below the target; the search must still end."""
    top_p = float(np.nextafter(1, 0))
    for seed in range(300):  # about one of twelve rounds down
        weights = np.exp(np.random.default_rng(seed).normal(0, 3, 3000)).astype(np.float32)
        running = np.cumsum(-np.sort(-weights), dtype=np.float64)
        if running[-1] < top_p * float(weights.sum(dtype=np.float64)):
            assert select_nucleus(weights, top_p).size == 3000
            return
    pytest.fail("no running sum stays below the target")


@given(npst.arrays(np.float64, st.integers(1, 50), elements=st.floats(0.001, 1)), st.data())
def test_draw_walks_along_the_weights(weights: np.ndarray, data: st.DataObject):
    uniform = data.draw(st.floats(0, 1, exclude_max=True))
    walked, mass = 0, weights[0]
    while mass <= uniform * weights.cumsum()[-1] and walked < weights.size - 1:
        walked += 1
        mass += weights[walked]
    assert draw(weights, uniform) == walked


def test_draws_are_distributed_as_the_probabilities():
    """20,000 draws of a fixed seed: each count within 5 standard deviations of its mean."""
    scores = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))
    sampler = Sampler(SamplingSettings(seed=11), 4, [])
    counts = np.bincount([sampler.choose(scores) for _ in range(20_000)], minlength=4)
    expected = np.exp(scores.astype(np.float64)) * 20_000
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_one_seed_gives_one_output_on_every_platform():
    """The numbers are PCG64's; a change of them changes every user's seeded answers."""
    scores = np.zeros(1000, np.float32)
    chosen = [Sampler(SamplingSettings(seed=42), 1000, []).choose(scores) for _ in range(2)]
    sampler = Sampler(SamplingSettings(seed=42), 1000, [])
    assert chosen == [773, 773]
    assert [sampler.choose(scores) for _ in range(4)] == [773, 438, 858, 697]


def test_without_a_seed_two_answers_differ():
    """By chance alike: 1000 ** -8."""
    scores = np.zeros(1000, np.float32)
    samplers = [Sampler(SamplingSettings(), 1000, []) for _ in range(2)]
    first, second = ([sampler.choose(scores) for _ in range(8)] for sampler in samplers)
    assert first != second


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("temperature", [0, 1e-50, 1, 100])
def test_padding_ids_are_never_chosen(dtype: type, temperature: float):
    logits = np.full(64, -5, dtype)
    logits[50:] = 100  # the padded rows of a head are never trained; they may hold anything
    sampler = Sampler(SamplingSettings(temperature=temperature, seed=0), 50, [])
    assert max(sampler.choose(logits) for _ in range(200)) < 50


@given(npst.arrays(np.float16, st.integers(1, 200), elements=SCORES))
def test_the_largest_float16_is_found_without_comparing_floats(scores: np.ndarray):
    assert scores[find_largest(scores)] == scores.max()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_zero_is_equal_to_a_zero_with_a_sign(dtype: type):
    """The first of equals is chosen, in float16 too, where zeros have two representations."""
    assert find_largest(np.array([-1, -0.0, 0.0, -0.0], dtype)) == 1
    with pytest.raises(GenerationError, match="nan as its best logit"):
        find_largest(np.array([0.0, np.copysign(NAN, -1)], dtype))


BROKEN = ([1, NAN, 2], [np.copysign(NAN, -1)] * 3, [float("-inf")] * 3, [float("inf"), 1])


def test_a_tiny_temperature_is_greedy():
    scores = np.random.default_rng(0).normal(0, 1, 1000).astype(np.float32)
    sampler = Sampler(SamplingSettings(temperature=1e-50, seed=0), 1000, [])
    assert sampler.choose(scores) == scores.argmax()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("broken", BROKEN)
def test_logits_nothing_can_be_chosen_from_are_reported(
    broken: list[float], temperature: float, dtype: type
):
    """float16 overflow shows like this; silently it would answer "!!!!"."""
    sampler = Sampler(SamplingSettings(temperature=temperature, seed=0), len(broken), [])
    with pytest.raises(GenerationError, match=r"as its best logit .* a folder in float16"):
        sampler.choose(np.array(broken, dtype))
