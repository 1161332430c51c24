"""Penalties and biases against plain loops from their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_runtime import DrySettings, SamplingSettings
from glm_runtime.errors import SamplingError
from glm_runtime.sampling.penalties import Penalties, measure_repeats

TOKENS = st.lists(st.integers(0, 5), max_size=40)


def naive_repeats(tokens: list[int], dry: DrySettings, breakers: set[int]) -> dict[int, float]:
    """For each earlier place: how many tokens before it are those at the end."""
    longest: dict[int, int] = {}
    for place in range(1, len(tokens)):
        length = 0
        while length < min(place, dry.allowed_length + 50):
            token = tokens[len(tokens) - 1 - length]
            if token != tokens[place - 1 - length] or token in breakers:
                break
            length += 1
        if length >= dry.allowed_length and tokens[place] not in breakers:
            longest[tokens[place]] = max(length, longest.get(tokens[place], 0))
    return {
        token: dry.multiplier * dry.base ** (length - dry.allowed_length)
        for token, length in longest.items()
    }


@given(TOKENS, st.integers(1, 4), st.sets(st.integers(0, 5), max_size=2))
def test_dry_is_that_of_a_plain_loop(tokens: list[int], allowed: int, breakers: set[int]):
    dry = DrySettings(0.7, 1.5, allowed)
    ids, penalties = measure_repeats(np.array(tokens, np.int64), dry, breakers)
    expected = naive_repeats(tokens, dry, breakers)
    assert sorted(ids.tolist()) == sorted(expected)
    for id_, penalty in zip(ids.tolist(), penalties.tolist(), strict=True):
        assert penalty == pytest.approx(expected[id_], rel=1e-6)


def test_the_largest_penalties_stay_finite():
    """An infinite score would look like a fault of the model, where it is the only one allowed."""
    largest = 1_000_000
    sampling = SamplingSettings(
        repetition_penalty=0.01,
        presence_penalty=-largest,
        frequency_penalty=-largest,
        dry=DrySettings(largest, largest, 1),
        logit_bias=((1, largest), (2, -largest)),
    )
    penalties = Penalties(sampling, 4, [1] * 100)
    for _ in range(100):
        penalties.add(1)
    assert np.isfinite(penalties.apply(np.full(4, 1000, np.float32))).all()
    off = DrySettings(0, largest, 1)
    assert measure_repeats(np.ones(100, np.int64), off)[1].tolist() == [0]


def test_a_breaker_is_never_made_less_likely():
    """A list would lose its newlines otherwise."""
    tokens = np.array([1, 2, 3, 9, 1, 2, 3], np.int64)
    assert measure_repeats(tokens, DrySettings())[0].tolist() == [9]
    assert measure_repeats(tokens, DrySettings(), {9})[0].tolist() == []


def test_dry_forbids_the_fourth_round_of_a_loop():
    ids, penalties = measure_repeats(np.array([1, 2, 3] * 3, np.int64), DrySettings())
    assert ids.tolist() == [1]
    assert penalties[0] == pytest.approx(0.8 * 1.75**4)


def test_a_repeat_of_thousands_weighs_no_more_than_fifty_beyond_the_allowed():
    _, penalties = measure_repeats(np.ones(5000, np.int64), DrySettings())
    assert penalties.tolist() == [pytest.approx(0.8 * 1.75**50)]


@given(TOKENS, TOKENS, st.floats(-2, 2), st.floats(-2, 2), st.floats(0.5, 2))
def test_counting_penalties_are_those_of_a_plain_loop(
    prompt: list[int], answer: list[int], presence: float, frequency: float, repetition: float
):
    """Repetition counts prompt and answer, presence and frequency the answer only."""
    settings = SamplingSettings(
        repetition_penalty=repetition,
        presence_penalty=presence,
        frequency_penalty=frequency,
        logit_bias=((2, 3.0), (3, -math.inf), (2, 1.0)),
    )
    scores = np.linspace(-3, 3, 6).astype(np.float32)
    penalties = Penalties(settings, 6, prompt)
    for token in answer:
        penalties.add(token)
    expected = []
    for token, score in enumerate(scores.tolist()):
        changed = score + {2: 4.0, 3: -math.inf}.get(token, 0.0)
        if token in prompt + answer:
            changed = changed * repetition if changed < 0 else changed / repetition
        count = answer.count(token)
        expected.append(changed - frequency * count - (presence if count else 0))
    np.testing.assert_allclose(penalties.apply(scores), expected, rtol=1e-5, atol=1e-5)
    assert scores.tolist() == np.linspace(-3, 3, 6).astype(np.float32).tolist()


def test_without_penalties_the_logits_are_not_even_copied():
    scores = np.zeros(6, np.float16)
    assert Penalties(SamplingSettings(), 6, [1]).apply(scores) is scores


def test_dry_sees_tokens_as_they_are_added():
    penalties = Penalties(SamplingSettings(dry=DrySettings()), 10, [1, 2, 3, 1])
    penalties.add(2)
    assert penalties.apply(np.zeros(10, np.float32)).tolist() == [
        *(0, 0, 0, pytest.approx(-0.8)),
        *(0,) * 6,
    ]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"presence_penalty": math.nan}, "presence_penalty is nan where a number from"),
        ({"frequency_penalty": math.inf}, "frequency_penalty is inf"),
        ({"logit_bias": 5}, "logit_bias is 5 where pairs of a token id and a number are"),
        ({"logit_bias": {1: 2}}, "logit_bias is {1: 2} where pairs"),
        ({"logit_bias": ((1, "2"),)}, r"logit_bias is \(\(1, '2'\),\) where pairs"),
        ({"logit_bias": ((-1, 0.0),)}, "names the id -1 where an id of 0 or more"),
        ({"logit_bias": ((4, math.nan),)}, "the bias of token 4 is nan where a number from"),
        ({"logit_bias": ((4, math.inf),)}, "the bias of token 4 is inf"),
        ({"logit_bias": ((4, 1e308),)}, "the bias of token 4 is 1e\\+308 where a number from"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, sentence: str):
    with pytest.raises(SamplingError, match=sentence):
        SamplingSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"multiplier": -1}, "dry_multiplier is -1 where a number from 0"),
        ({"base": 0.5}, "dry_base is 0.5 where a number from 1 to 1000000"),
        ({"base": 1e308}, "dry_base is 1e\\+308 where a number from 1 to 1000000"),
        ({"allowed_length": 0}, "dry_allowed_length is 0 where 1 or more"),
        ({"sequence_breakers": ("",)}, "a sequence breaker is empty"),
        ({"sequence_breakers": "\n:"}, "sequence_breakers is the text .* where a tuple of texts"),
    ],
)
def test_settings_of_dry_out_of_range_are_refused(settings: dict, sentence: str):
    with pytest.raises(SamplingError, match=sentence):
        DrySettings(**settings)


def test_a_bias_for_no_token_is_refused():
    with pytest.raises(SamplingError, match="names the id 6 where ids below 6 are expected"):
        Penalties(SamplingSettings(logit_bias=((6, 1.0),)), 6, [])
