"""glm-eval's figures against the definitions, computed naively in float64."""

import math

import numpy as np
import pytest
import torch

from glm_export.evaluation.comparison import Comparer


def naive(reference: np.ndarray, candidate: np.ndarray, ids: list[int]) -> dict[str, float]:
    p = np.exp(reference) / np.exp(reference).sum(-1, keepdims=True)
    q = np.exp(candidate) / np.exp(candidate).sum(-1, keepdims=True)
    divergences = [
        sum(a * math.log(a / b) for a, b in zip(p_row, q_row, strict=True))
        for p_row, q_row in zip(p, q, strict=True)
    ]
    follow = range(len(ids) - 1)
    return {
        "kl_mean": sum(divergences) / len(divergences),
        "kl_p99": float(np.quantile(divergences, 0.99)),
        "perplexity": math.exp(-sum(math.log(q[i, ids[i + 1]]) for i in follow) / len(follow)),
        "reference_perplexity": math.exp(
            -sum(math.log(p[i, ids[i + 1]]) for i in follow) / len(follow)
        ),
        "top1_agreement": float((p.argmax(-1) == q.argmax(-1)).mean()),
    }


def test_equals_the_definitions() -> None:
    random = np.random.default_rng(0)
    reference = random.normal(size=(20, 50))
    candidate = reference + random.normal(scale=0.5, size=(20, 50))
    ids = random.integers(0, 50, 20).tolist()
    comparer = Comparer()
    logits = [torch.from_numpy(x.astype(np.float32)) for x in (reference, candidate)]
    comparer.add(*logits, torch.tensor(ids))
    found = comparer.summarize()
    for name, expected in naive(reference, candidate, ids).items():
        assert getattr(found, name) == pytest.approx(expected, rel=1e-4), name
    assert found.tokens == 20


def test_windows_weigh_by_their_tokens() -> None:
    """Perplexity is over predicted tokens: a window's first token is predicted by nobody."""
    logits = torch.zeros(5, 8)
    comparer = Comparer()
    comparer.add(logits, logits, torch.arange(5))
    comparer.add(logits[:2], logits[:2], torch.arange(2))
    found = comparer.summarize()
    assert found.perplexity == pytest.approx(8)
    assert (found.tokens, found.kl_mean, found.top1_agreement) == (7, 0, 1)
