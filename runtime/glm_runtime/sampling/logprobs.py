"""How likely the model itself thought a token, before temperature, penalties and grammar."""

from dataclasses import dataclass

import numpy as np

from glm_runtime.arrays import FloatArray
from glm_runtime.sampling.sampler import select_top


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural logarithms of probabilities.

    Attributes:
        chosen: of the token that was chosen.
        top: (token id, logarithm) of the likeliest tokens, falling; ties by id.
    """

    chosen: float
    top: tuple[tuple[int, float], ...]


def measure_logprobs(logits: FloatArray, token: int, count: int) -> TokenLogprobs:
    """Logarithms of the softmax of logits [V], for one token and for the `count` likeliest."""
    scores = logits.astype(np.float64)
    best = scores.max()
    total = float(best + np.log(np.exp(scores - best).sum()))
    top: list[tuple[int, float]] = []
    if count:
        ids = select_top(logits.astype(np.float32, copy=False), min(count, logits.size))
        ids = ids[np.argsort(-scores[ids], kind="stable")][:count]
        top = [(int(id_), float(scores[id_] - total)) for id_ in ids]
    return TokenLogprobs(float(scores[token] - total), tuple(top))
