"""Sensitivity: the KL divergence that quantizing each matrix causes, without quantizing the model.

For small changes, KL(original || changed) summed over a window is half the mean of (g · change)^2.
Here g is the gradient of -log p(labels), with labels sampled from the original (Fisher
information). Rounding errors of different rows are independent, so the squares of the rows are
added, which a few samples estimate well. Read `gradients.py` before.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glm_export.calibration.gradients import (
    LinearTrace,
    draw_head_gradients,
    pull_back,
    pull_back_norm,
    split_positions,
)
from glm_export.errors import CheckpointError
from glm_export.model.architectures import DecoderConfig
from glm_export.model.layer_stream import LayerStream, ReadParameter
from glm_quantize import FloatArray, Scheme, dequantize
from glm_quantize.methods.rtn import round_to_nearest
from glm_quantize.methods.rtn_search import search_scales
from glm_runtime.arrays import TokenArray
from glm_runtime.progress import Advance

Candidates = Mapping[str, Sequence[Scheme]]

_EMBEDDING, _HEAD = "embed_tokens.weight", "lm_head.weight"
# Number of labels sampled per token; each takes about as long as a forward pass. On the trained
# sample, costs from 4 windows of 512 tokens vary between seeds by 3 % with four labels (median; at
# most 11 %), which is less than the differences between schemes. Two labels are half the work.
_LABEL_DRAWS = 2
_SEED = 0
# Number of weights that one thread rounds at a time.
_WEIGHTS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Sensitivity:
    """Result of the measurement.

    Attributes:
        costs: for each matrix and scheme, the mean KL(original || quantized) in nats per token if
            only that matrix is quantized. For tied embeddings, the sum of both uses.
        embedding_moments: [C, C] float32, M, the mean of g gᵀ over tokens, with g the gradient at
            the embedding's output. An error d in a row costs d M dᵀ / 2 for each token that reads
            it. For tied embeddings the mean of h hᵀ is added, with h the head's input: if the row's
            token has a small probability p, d costs p d (h hᵀ) dᵀ / 2, and on average p equals the
            frequency of the token.
    """

    costs: Mapping[str, Mapping[Scheme, float]]
    embedding_moments: FloatArray


def measure_sensitivity(
    config: DecoderConfig,
    read: ReadParameter,
    windows: TokenArray,
    candidates: Candidates,
    advance: Advance,
    device: str = "cpu",
) -> Sensitivity:
    """Estimate the cost of each candidate scheme of each matrix.

    Memory holds one layer, or the embedding or the head with a quantized copy. In addition the CPU
    holds the hidden states of all tokens at every layer.

    Args:
        config: shape of the decoder.
        read: reads finite float32 parameters by name, each at most twice.
        windows: [n, S] token ids; every window starts at position 0.
        candidates: schemes to try for each matrix.
        advance: called with the work just done, in weights: the forward pass counts each once, the
            backward pass and its measurement twice.
        device: PyTorch device that computes.

    Returns:
        The costs in the order of `candidates`, and the embedding's moments.

    Raises:
        CheckpointError: the decoder computes NaN or Inf.
        SchemeError: a row of a matrix is not a multiple of the block size.

    Source: the Fisher information is KL's second derivative, Martens 2014 (arXiv:1412.1193).
    """
    measurement = _Measurement(LayerStream(config, read, device), candidates)
    table_weights = config.vocab_size * config.hidden_size
    states: list[Tensor] = []
    for output in measurement.stream.run(windows):
        advance(measurement.stream.layer_weights if states else table_weights)
        states.append(output)
    embedded = states[0]
    gradients = measurement.pass_head(states.pop())
    if not config.is_tied:
        advance(3 * table_weights)
    for index in reversed(range(config.num_layers)):
        gradients = measurement.pass_layer(index, states.pop(), gradients)
        advance(2 * measurement.stream.layer_weights)
    measurement.pass_embedding(windows, embedded, gradients)
    advance(2 * table_weights)
    moments = _average_products(gradients)
    if config.is_tied:
        moments += measurement.head_moments
    costs = {name: measurement.costs[name] for name in candidates}
    return Sensitivity(costs, moments.numpy())


class _Measurement:
    """Collects the costs, from the head to the embedding."""

    def __init__(self, stream: LayerStream, candidates: Candidates) -> None:
        self.stream = stream
        self.costs: dict[str, dict[Scheme, float]] = {}
        self._candidates = candidates
        self.head_moments = torch.empty(0)

    def pass_head(self, states: Tensor) -> Tensor:
        """Measure the head; return the gradients [K, B, S, C] at the last layer's output."""
        stream = self.stream
        name = _EMBEDDING if stream.config.is_tied else _HEAD
        hidden = stream.normalise(states).flatten(0, 1).to(stream.device)
        if not bool(hidden.isfinite().all()):
            raise CheckpointError(
                "the decoder computes NaN or Inf on the calibration text; check the checkpoint's "
                "files, or choose --method rtn, which does not run it."
            )
        self.head_moments = _average_products(hidden).cpu()
        head = stream.read_tensor(name)
        self._add(name, _measure_head(hidden, head, self._schemes(name)))
        drawn = draw_head_gradients(hidden, head.to(stream.device), _LABEL_DRAWS, _SEED)
        gradients = drawn.gradients.reshape(-1, *states.shape).cpu()
        return pull_back_norm(stream, states, gradients)

    def pass_layer(self, index: int, states: Tensor, gradients: Tensor) -> Tensor:
        """Measure a layer; return the gradients at its input."""
        layer = self.stream.load_layer(index)
        traces, pulled = pull_back(self.stream, layer, states, gradients)
        for short in traces[0]:
            name = f"layers.{index}.{short}.weight"
            weight = layer.get_parameter(f"{short}.weight")
            of_linear = [window[short] for window in traces]
            self._add(name, _measure_linear(weight, of_linear, self._schemes(name)))
        return pulled

    def pass_embedding(self, windows: TokenArray, embedded: Tensor, gradients: Tensor) -> None:
        """Measure the embedding from the gradients [K, B, S, C] at its output [B, S, C]."""
        costs = _measure_embedding(windows, embedded, gradients, self._schemes(_EMBEDDING))
        self._add(_EMBEDDING, costs)

    def _schemes(self, name: str) -> Sequence[Scheme]:
        return self._candidates.get(name, ())

    def _add(self, name: str, costs: Mapping[Scheme, float]) -> None:
        known = self.costs.setdefault(name, {})
        for scheme, cost in costs.items():
            known[scheme] = known.get(scheme, 0.0) + cost


def _average_products(vectors: Tensor) -> Tensor:
    """Return the mean [C, C] of v vᵀ over vectors [..., C]."""
    flat = vectors.flatten(0, -2)
    return flat.T @ flat / len(flat)


def _measure_head(hidden: Tensor, head: Tensor, schemes: Iterable[Scheme]) -> dict[Scheme, float]:
    """Compute the mean KL divergence of the quantized head directly from the logits."""
    weight = head.to(hidden.device)
    costs = {}
    for scheme in schemes:
        errors = _round_errors(head.numpy(), scheme).to(hidden.device)
        total = 0.0
        for part in split_positions(hidden, head):
            total += _sum_divergences(part @ weight.T, part @ errors.T)
        costs[scheme] = total / len(hidden)
    return costs


def _sum_divergences(logits: Tensor, changes: Tensor) -> float:
    """Sum KL(softmax(logits) || softmax(logits + changes)) in float64, since it is small."""
    log_p = torch.log_softmax(logits.double(), dim=-1)
    log_q = torch.log_softmax(logits.double() + changes, dim=-1)
    return float((log_p.exp() * (log_p - log_q)).sum())


def _measure_linear(
    weight: Tensor, traces: list[LinearTrace], schemes: Iterable[Scheme]
) -> dict[Scheme, float]:
    """Compute half the mean square, per token, of the losses' changes by errors in W [N, C].

    The error E_n of row n changes a window's loss by Σ_t G_tn (X_t · E_n). If only R of the N
    outputs were kept, the result is scaled by N / R.
    """
    rows = weight[traces[0].outputs]
    tokens = sum(len(trace.inputs) for trace in traces)
    costs = {}
    for scheme in schemes:
        errors = _round_errors(rows.cpu().numpy(), scheme).to(weight.device)
        changes = [(trace.gradients * (trace.inputs @ errors.T)).sum(1) for trace in traces]
        cost = _sum_half_squares(torch.stack(changes, dim=1)) / tokens
        costs[scheme] = cost * len(weight) / len(rows)
    return costs


def _measure_embedding(
    windows: TokenArray, embedded: Tensor, gradients: Tensor, schemes: Iterable[Scheme]
) -> dict[Scheme, float]:
    """Compute the cost of the embedding, of which only the rows that were read are rounded.

    Args:
        windows: [B, S] token ids.
        embedded: [B, S, C] embeddings of these tokens.
        gradients: [K, B, S, C] gradients at the embeddings.
        schemes: schemes to try.
    """
    _, firsts, flat = np.unique(windows, return_index=True, return_inverse=True)
    table = embedded.flatten(0, 1).numpy()[firsts]
    places = torch.from_numpy(flat.reshape(windows.shape))
    costs = {}
    for scheme in schemes:
        at_tokens = (gradients * _round_errors(table, scheme)[places]).sum(-1)
        changes = torch.zeros(*at_tokens.shape[:2], len(table))
        changes.scatter_add_(-1, places.expand_as(at_tokens), at_tokens)
        costs[scheme] = _sum_half_squares(changes) / windows.size
    return costs


def _sum_half_squares(changes: Tensor) -> float:
    """Halve the squares of [K, B, rows], average over draws, and sum over windows and rows."""
    return 0.5 * float(changes.double().square().sum()) / len(changes)


def _round_errors(weight: FloatArray, scheme: Scheme) -> Tensor:
    """Return the rounding error of a weight [N, C]; PyTorch's number of threads compute it."""
    # A search for scales takes 20 times as long as rounding, and gains little with 8 bits.
    method = round_to_nearest if scheme.bits == 8 else search_scales
    errors = np.empty_like(weight)
    step = max(1, _WEIGHTS_AT_ONCE // weight.shape[1])

    def fill(start: int) -> None:
        part = slice(start, start + step)
        np.subtract(dequantize(method(weight[part], scheme)), weight[part], out=errors[part])

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, range(0, len(weight), step)))
    return torch.from_numpy(errors)
