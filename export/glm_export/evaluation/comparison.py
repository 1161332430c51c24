"""Comparison of two models' logits on the same text: perplexity, KL divergence and agreement.

Figures are in nats, and sums are float64; logits stay float32.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Comparison:
    """Quality of a candidate model relative to a reference model.

    Attributes:
        tokens: number of positions compared.
        perplexity: perplexity of the candidate, exp of the mean negative log-probability.
        reference_perplexity: perplexity of the reference.
        kl_mean: mean of KL(reference || candidate) over positions, in nats.
        kl_p99: 99th percentile of this KL divergence, in nats.
        top1_agreement: share of positions at which both give the same token the highest
            probability.
    """

    tokens: int
    perplexity: float
    reference_perplexity: float
    kl_mean: float
    kl_p99: float
    top1_agreement: float


class Comparer:
    """Compares logits window by window."""

    def __init__(self) -> None:
        self._divergences: list[Tensor] = []
        self._losses: list[tuple[float, float]] = []
        self._agreed = 0
        self._predicted = 0

    def add(self, reference: Tensor, candidate: Tensor, input_ids: Tensor) -> None:
        """Compare one window.

        Args:
            reference: [S, V] float32 logits.
            candidate: [S, V] float32 logits of the same positions.
            input_ids: [S] int64 token ids; position i predicts token i + 1.
        """
        log_p, log_q = F.log_softmax(reference, dim=-1), F.log_softmax(candidate, dim=-1)
        divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
        self._divergences.append(divergence.clamp(min=0))  # rounding can give -1e-9
        self._agreed += int((log_p.argmax(-1) == log_q.argmax(-1)).sum())
        targets = input_ids[1:]
        losses = (float(F.nll_loss(log[:-1], targets, reduction="sum")) for log in (log_q, log_p))
        self._losses.append((next(losses), next(losses)))
        self._predicted += len(targets)

    def summarize(self) -> Comparison:
        """Return the figures over all windows."""
        divergences = torch.cat(self._divergences).numpy().astype(np.float64)
        candidate, reference = np.sum(np.asarray(self._losses, dtype=np.float64), axis=0)
        return Comparison(
            tokens=len(divergences),
            perplexity=float(np.exp(candidate / self._predicted)),
            reference_perplexity=float(np.exp(reference / self._predicted)),
            kl_mean=float(divergences.mean()),
            kl_p99=float(np.quantile(divergences, 0.99)),
            top1_agreement=self._agreed / len(divergences),
        )
