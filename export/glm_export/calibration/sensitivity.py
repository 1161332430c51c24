"""What quantizing each matrix costs, in KL divergence, without quantizing the model.

For small changes KL(original || changed), summed over a window, is half the mean of (g · change)^2,
with g the gradient of -log p(labels) and labels that the original draws: the Fisher information.
Rounding errors of different rows are independent, so squares are taken row by row and added up,
which a few draws estimate well. Read `gradients.py` before.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glm_export.arrays import TokenArray
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
from glm_runtime.progress import Advance

Candidates = Mapping[str, Sequence[Scheme]]

_EMBEDDING, _HEAD = "embed_tokens.weight", "lm_head.weight"
# Labels drawn per token; each takes about as long as a forward pass. On the trained sample, costs
# from 4 windows of 512 tokens vary by 3 % between seeds with four draws (median; 11 % at worst),
# which is less than schemes differ; two are half the work.
_LABEL_DRAWS = 2
_SEED = 0
# Weights that one thread rounds at a time.
_WEIGHTS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Sensitivity:
    """What was measured.

    Attributes:
        costs: matrix -> scheme -> mean KL(original || quantized) in nats per token if only that
            matrix were quantized so. A tied head's is the sum of both uses of the embedding.
        embedding_moments: [C, C] float32, the mean of g gᵀ over tokens, where g is the gradient at
            the embedding's output: an error d in a row costs d M dᵀ / 2 wherever it is read. Of a
            tied head, the mean of h hᵀ is added, h being the head's input: where a row's token has
            a small probability p, d costs p d (h hᵀ) dᵀ / 2 there, and p is as frequent as reading.
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
    """Estimate what each candidate scheme of each matrix costs.

    Memory is one layer, or the embedding and, of the head, one quantized copy; besides, on the CPU,
    the hidden states of all tokens at every layer.

    Args:
        config: the decoder's shape.
        read: parameter name -> float32 values, finite; each is read twice at most.
        windows: [n, S] token ids; every window starts at position 0.
        candidates: decoder parameter name of a matrix -> schemes to try.
        advance: called with the number of weights just measured.
        device: where torch computes.

    Returns:
        The costs, in the order of `candidates`, and the embedding's moments.

    Raises:
        CheckpointError: the decoder computes NaN or Inf.
        SchemeError: a block size that does not divide its matrix's rows.

    Source: the Fisher information is KL's second derivative, Martens 2014 (arXiv:1412.1193).
    """
    measurement = _Measurement(LayerStream(config, read, device), candidates)
    states = list(measurement.stream.run(windows))
    embedded = states[0]
    gradients = measurement.pass_head(states.pop())
    table_weights = config.vocab_size * config.hidden_size
    if not config.is_tied:
        advance(table_weights)
    for index in reversed(range(config.num_layers)):
        gradients, weights = measurement.pass_layer(index, states.pop(), gradients)
        advance(weights)
    measurement.pass_embedding(windows, embedded, gradients)
    advance(table_weights)
    moments = _average_products(gradients)
    if config.is_tied:
        moments += measurement.head_moments
    costs = {name: measurement.costs[name] for name in candidates}
    return Sensitivity(costs, moments.numpy())


class _Measurement:
    """Costs as they come in, from the head down."""

    def __init__(self, stream: LayerStream, candidates: Candidates) -> None:
        self.stream = stream
        self.costs: dict[str, dict[Scheme, float]] = {}
        self._candidates = candidates
        self.head_moments = torch.empty(0)

    def pass_head(self, states: Tensor) -> Tensor:
        """From the last layer's output [B, S, C] to gradients [K, B, S, C] there."""
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

    def pass_layer(self, index: int, states: Tensor, gradients: Tensor) -> tuple[Tensor, int]:
        """Gradients at a layer's output to those at its input, and the layer's weights."""
        layer = self.stream.load_layer(index)
        traces, pulled = pull_back(self.stream, layer, states, gradients)
        for short in traces[0]:
            name = f"layers.{index}.{short}.weight"
            weight = layer.get_parameter(f"{short}.weight")
            of_linear = [window[short] for window in traces]
            self._add(name, _measure_linear(weight, of_linear, self._schemes(name)))
        return pulled, sum(parameter.numel() for parameter in layer.parameters())

    def pass_embedding(self, windows: TokenArray, embedded: Tensor, gradients: Tensor) -> None:
        """The last step: gradients [K, B, S, C] at the embedding's output [B, S, C]."""
        costs = _measure_embedding(windows, embedded, gradients, self._schemes(_EMBEDDING))
        self._add(_EMBEDDING, costs)

    def _schemes(self, name: str) -> Sequence[Scheme]:
        return self._candidates.get(name, ())

    def _add(self, name: str, costs: Mapping[Scheme, float]) -> None:
        known = self.costs.setdefault(name, {})
        for scheme, cost in costs.items():
            known[scheme] = known.get(scheme, 0.0) + cost


def _average_products(vectors: Tensor) -> Tensor:
    """[C, C], the mean of v vᵀ over vectors [..., C]."""
    flat = vectors.flatten(0, -2)
    return flat.T @ flat / len(flat)


def _measure_head(hidden: Tensor, head: Tensor, schemes: Iterable[Scheme]) -> dict[Scheme, float]:
    """Mean KL of softmax(h Wᵀ) from that of the quantized head, directly."""
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
    """Sum of KL(softmax(logits) || softmax(logits + changes)), in float64, since it is small."""
    log_p = torch.log_softmax(logits.double(), dim=-1)
    log_q = torch.log_softmax(logits.double() + changes, dim=-1)
    return float((log_p.exp() * (log_p - log_q)).sum())


def _measure_linear(
    weight: Tensor, traces: list[LinearTrace], schemes: Iterable[Scheme]
) -> dict[Scheme, float]:
    """Half the mean square of what errors in W [N, C] change of the losses, per token.

    Errors E_n in row n change a window's loss by Σ_t G_tn (X_t · E_n). Where only R of N outputs
    were kept, the others are taken to cost as much.
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
    """The same for a table, of which only the rows that were read are rounded.

    Args:
        windows: [B, S] token ids.
        embedded: [B, S, C], what the table gave.
        gradients: [K, B, S, C] at these.
        schemes: to try.
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
    """Of [K, B, rows]: the mean over draws, summed over windows and rows."""
    return 0.5 * float(changes.double().square().sum()) / len(changes)


def _round_errors(weight: FloatArray, scheme: Scheme) -> Tensor:
    """What rounding adds to a weight [N, C], by torch's number of threads."""
    # Searching scales takes 20 times as long as rounding, and gains little at 8 bits.
    method = round_to_nearest if scheme.bits == 8 else search_scales
    errors = np.empty_like(weight)
    step = max(1, _WEIGHTS_AT_ONCE // weight.shape[1])

    def fill(start: int) -> None:
        part = slice(start, start + step)
        np.subtract(dequantize(method(weight[part], scheme)), weight[part], out=errors[part])

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, range(0, len(weight), step)))
    return torch.from_numpy(errors)
