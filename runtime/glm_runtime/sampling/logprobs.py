"""Log-probabilities of the model itself, before temperature, penalties and grammar."""

from dataclasses import dataclass

import numpy as np

from glm_runtime.arrays import FloatArray
from glm_runtime.sampling.sampler import select_top


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural logarithms of probabilities at one position.

    Attributes:
        chosen: log-probability of the chosen token.
        top: (token id, log-probability) of the most likely tokens, in falling order; ties by id.
    """

    chosen: float
    top: tuple[tuple[int, float], ...]


def measure_logprobs(logits: FloatArray, token: int, count: int) -> TokenLogprobs:
    """Return log-probabilities of one token and of the `count` most likely ones.

    Args:
        logits: [V] float32 or float16.
        token: the chosen token.
        count: number of most likely tokens; 0 gives none.
    """
    scores = logits.astype(np.float64)
    best = scores.max()
    total = float(best + np.log(np.exp(scores - best).sum()))
    top: list[tuple[int, float]] = []
    if count:
        ids = select_top(logits.astype(np.float32, copy=False), min(count, logits.size))
        ids = ids[np.argsort(-scores[ids], kind="stable")][:count]
        top = [(int(id_), float(scores[id_] - total)) for id_ in ids]
    return TokenLogprobs(float(scores[token] - total), tuple(top))
