"""Comparison of two models' logits on the same text: perplexity, KL divergence and agreement.

Figures are in nats, and sums are float64; logits stay float32.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from glm_export.evaluation.intervals import Float64Array


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


@dataclass(frozen=True)
class WindowSums:
    """The sums of each window, of which the figures are made; arrays [W] float64.

    Attributes:
        tokens: number of positions compared.
        predicted: number of tokens that are predicted, one less.
        losses: negative log-probability of these tokens by the candidate, in nats.
        reference_losses: the same by the reference.
        divergences: sum of KL(reference || candidate) over positions, in nats.
        agreed: number of positions at which both give the same token the highest probability.
    """

    tokens: Float64Array
    predicted: Float64Array
    losses: Float64Array
    reference_losses: Float64Array
    divergences: Float64Array
    agreed: Float64Array


class Comparer:
    """Compares logits window by window."""

    def __init__(self) -> None:
        self._divergences: list[Tensor] = []
        self._losses: list[tuple[float, float]] = []
        self._agreed: list[int] = []
        self._predicted: list[int] = []

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
        self._agreed.append(int((log_p.argmax(-1) == log_q.argmax(-1)).sum()))
        targets = input_ids[1:]
        losses = (float(F.nll_loss(log[:-1], targets, reduction="sum")) for log in (log_q, log_p))
        self._losses.append((next(losses), next(losses)))
        self._predicted.append(len(targets))

    def summarize(self) -> Comparison:
        """Return the figures over all windows."""
        divergences = torch.cat(self._divergences).numpy().astype(np.float64)
        candidate, reference = np.sum(np.asarray(self._losses, dtype=np.float64), axis=0)
        return Comparison(
            tokens=len(divergences),
            perplexity=float(np.exp(candidate / sum(self._predicted))),
            reference_perplexity=float(np.exp(reference / sum(self._predicted))),
            kl_mean=float(divergences.mean()),
            kl_p99=float(np.quantile(divergences, 0.99)),
            top1_agreement=sum(self._agreed) / len(divergences),
        )

    def sum_windows(self) -> WindowSums:
        """Return the sums of each window, in the order in which they were added."""
        losses, reference_losses = np.asarray(self._losses, dtype=np.float64).T
        windows = [window.numpy().astype(np.float64) for window in self._divergences]
        return WindowSums(
            tokens=np.array([len(window) for window in windows], np.float64),
            predicted=np.array(self._predicted, np.float64),
            losses=losses,
            reference_losses=reference_losses,
            divergences=np.array([window.sum() for window in windows]),
            agreed=np.array(self._agreed, np.float64),
        )
