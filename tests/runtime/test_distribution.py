"""What is drawn, against probabilities worked out one by one from the definitions.

Pearson's chi-square over 20,000 draws. Seeds are fixed, so nothing here fails by chance; another
seed would pass with a probability of all but 10^-6 each.
"""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from glm_runtime import DrySettings, SamplingSettings
from glm_runtime.sampling.penalties import Penalties
from glm_runtime.sampling.sampler import draw, find_candidates

DRAWS = 20_000
QUANTILE = 4.7534  # of the normal distribution, at 1 - 10^-6
HISTORY = [3, 1, 4, 1, 5, 3, 1, 4, 2, 3, 1]  # ends as it began: 4 would prolong the repeat
ANSWER = [2, 3, 1]  # its last three are the answer so far

SETTINGS = {
    "plain": SamplingSettings(),
    "cold": SamplingSettings(temperature=0.6),
    "hot": SamplingSettings(temperature=2.0),
    "top_k": SamplingSettings(top_k=5),
    "top_p": SamplingSettings(top_p=0.8),
    "min_p": SamplingSettings(min_p=0.2),
    "repetition": SamplingSettings(repetition_penalty=1.4),
    "presence": SamplingSettings(presence_penalty=0.9),
    "frequency": SamplingSettings(frequency_penalty=0.7),
    "bias": SamplingSettings(logit_bias=((7, 2.0), (0, -math.inf), (3, -1.0))),
    "dry": SamplingSettings(dry=DrySettings(0.8, 1.5, 2, ())),
    "Z1": SamplingSettings(temperature=0.6, top_k=40, top_p=0.95),
    "all": SamplingSettings(
        temperature=0.8,
        top_k=9,
        top_p=0.9,
        min_p=0.01,
        repetition_penalty=1.2,
        presence_penalty=0.3,
        frequency_penalty=0.2,
        dry=DrySettings(0.5, 1.75, 2, ()),
        logit_bias=((6, 1.0),),
    ),
}


def naive_probabilities(scores: Sequence[float], settings: SamplingSettings) -> list[float]:
    changed = [penalize(token, score, settings) for token, score in enumerate(scores)]
    order = sorted(range(len(changed)), key=lambda token: -changed[token])
    if settings.top_k:
        order = order[: settings.top_k]
    weights = {token: math.exp(changed[token] / settings.temperature) for token in order}
    total = sum(weights.values())
    kept, mass = [], 0.0
    for token in order:
        if mass < settings.top_p:
            kept.append(token)
        mass += weights[token] / total
    kept = [token for token in kept if weights[token] >= settings.min_p * weights[order[0]]]
    total = sum(weights[token] for token in kept)
    return [weights[token] / total if token in kept else 0.0 for token in range(len(scores))]


def penalize(token: int, score: float, settings: SamplingSettings) -> float:
    score += sum(bias for id_, bias in settings.logit_bias if id_ == token)
    if token in HISTORY:
        penalty = settings.repetition_penalty
        score = score * penalty if score < 0 else score / penalty
    if token in ANSWER:
        score -= settings.presence_penalty + settings.frequency_penalty * ANSWER.count(token)
    if settings.dry is not None and token == 4:
        score -= settings.dry.multiplier  # 3, 1 stood before it: as long as is allowed
    return score


def chi_square_bound(degrees: int) -> float:
    """Wilson and Hilferty's approximation of the quantile, good to a percent from 3 degrees on."""
    part = 2 / (9 * degrees)
    return degrees * (1 - part + QUANTILE * math.sqrt(part)) ** 3


@pytest.mark.parametrize("name", SETTINGS)
def test_draws_are_distributed_as_worked_out(name: str):
    settings = SETTINGS[name]
    scores = np.random.default_rng(3).normal(0, 1.5, 16).astype(np.float32)
    expected = naive_probabilities(scores.tolist(), settings)
    prompt = HISTORY[: len(HISTORY) - len(ANSWER)]
    penalties = Penalties(settings, 16, prompt)
    for token in ANSWER:
        penalties.add(token)
    candidates = find_candidates(penalties.apply(scores), settings)
    uniforms = np.random.Generator(np.random.PCG64(17)).random(DRAWS)
    chosen = [candidates.ids[draw(candidates.weights, uniform)] for uniform in uniforms]
    counts = np.bincount(chosen, minlength=16).astype(np.float64)
    mean = np.array(expected) * DRAWS
    assert not counts[mean == 0].any()
    mean, counts = mean[mean > 0], counts[mean > 0]
    statistic = ((counts - mean) ** 2 / mean).sum()
    assert statistic < chi_square_bound(max(1, mean.size - 1))
