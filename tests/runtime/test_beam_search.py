"""Beam search against a plain one, which reads every beam from its beginning."""

import math

import numpy as np
import pytest

from glm_runtime import Model, PromptError, SamplingError
from glm_runtime.answering.beam_search import BeamSettings, search_beams
from runtime.greedy_answers import plain_greedy, with_eos
from runtime.test_decoding import run_plainly

PROMPT = [5, 6, 7, 200]


def search(model: Model, prompt: list[int] = PROMPT, **settings):
    return search_beams(model.graph, model.manifest.model, prompt, BeamSettings(**settings))


def naive_search(model: Model, num_beams: int, limit: int, penalty: float) -> list[tuple]:
    """(score, tokens), by lists alone."""
    entry = model.manifest.model
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for length in range(1, limit + 1):
        ways = []
        for total, tokens in beams:
            scores = run_plainly(model, PROMPT + tokens, 1)[0][: entry.tokenizer_vocab_size]
            logprobs = scores - np.logaddexp.reduce(scores.astype(np.float64))
            ways += [(total + float(p), [*tokens, token]) for token, p in enumerate(logprobs)]
        ways.sort(key=lambda way: -way[0])
        for total, tokens in ways[:num_beams]:
            if tokens[-1] in entry.eos_token_ids:
                finished.append((total / length**penalty, tokens))
        beams = [way for way in ways if way[1][-1] not in entry.eos_token_ids][:num_beams]
        finished = sorted(finished, key=lambda one: -one[0])[:num_beams]
        if len(finished) == num_beams and beams[0][0] / length**penalty <= finished[-1][0]:
            return finished
    finished += [(total / limit**penalty, tokens) for total, tokens in beams]
    return sorted(finished, key=lambda one: -one[0])[:num_beams]


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -0.5])
@pytest.mark.parametrize("num_beams", [1, 2, 5])
def test_beams_are_those_of_a_plain_search(tiny_model: Model, num_beams: int, penalty: float):
    """Tokens 100 to 139 end an answer here, so that some end early."""
    model = with_eos(tiny_model, *range(100, 140))
    expected = naive_search(model, num_beams, 8, penalty)
    found = search(model, num_beams=num_beams, max_new_tokens=8, length_penalty=penalty)
    assert [list(beam.token_ids) for beam in found] == [tokens for _, tokens in expected]
    scores = [score for score, _ in expected]
    assert [beam.score for beam in found] == pytest.approx(scores, abs=1e-4)
    for beam in found:
        assert beam.is_finished == (beam.token_ids[-1] in model.manifest.model.eos_token_ids)


def test_one_beam_is_greedy(tiny_model: Model):
    model = with_eos(tiny_model)
    beam = search(model, num_beams=1, max_new_tokens=20)[0]
    assert list(beam.token_ids) == plain_greedy(model, PROMPT, 20)


def test_the_best_of_two_tokens_is_found_with_beams_enough(tiny_model: Model):
    """With as many beams as tokens, two steps are an exhaustive search."""
    model = with_eos(tiny_model)
    size = model.manifest.model.tokenizer_vocab_size
    best = search(model, num_beams=size, max_new_tokens=2, length_penalty=0.0)[0]
    first = run_plainly(model, PROMPT, 1)[0][:size].astype(np.float64)
    first -= np.logaddexp.reduce(first)
    totals = []
    for token in range(size):
        after = run_plainly(model, [*PROMPT, token], 1)[0][:size].astype(np.float64)
        totals.append(first[token] + (after - np.logaddexp.reduce(after)).max())
    assert best.logprob == pytest.approx(max(totals), abs=1e-4)


def test_a_full_context_ends_all_beams(tiny_model: Model):
    found = search(with_eos(tiny_model), [5] * 250, num_beams=3)
    assert [len(beam.token_ids) for beam in found] == [7, 7, 7]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_beams": 0}, "num_beams is 0 where 1 or more"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"length_penalty": math.nan}, "length_penalty is nan where a number"),
        ({"length_penalty": 2000.0}, "length_penalty is 2000.0 where a number from -10 to 10"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, sentence: str):
    with pytest.raises(SamplingError, match=sentence):
        BeamSettings(**settings)


def test_a_prompt_the_model_cannot_take_is_refused(tiny_model: Model):
    with pytest.raises(PromptError, match="the prompt is empty"):
        search(tiny_model, [])
