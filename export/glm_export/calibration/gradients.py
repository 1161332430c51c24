"""Backwards through the decoder, layer by layer, with one layer's weights in memory at a time.

The losses are -log p(label), summed over tokens, of labels that the model itself draws: the mean
square of such gradients is the Fisher information, which KL follows to second order. Read
`reference.py` before, `sensitivity.py` after.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from glm_export.calibration.reference import ReadParameter, TokenArray, load_layer
from glm_export.model import operators
from glm_export.model.architectures import DecoderConfig
from glm_export.model.decoder import DecoderLayer, Linear
from glm_export.model.rotary import rotation_tables

# Logits held at once, whatever the vocabulary: 64 MiB of float32.
_LOGITS_AT_ONCE = 1 << 24
# Of a linear with more outputs, gradients are kept of so many: a sample as large tells the rest.
_MOST_OUTPUTS = 2048


@dataclass(frozen=True)
class LinearTrace:
    """What one linear of a layer saw in one window of S tokens.

    Attributes:
        inputs: [S, C].
        outputs: [R] the outputs (rows of the weight) whose gradients are kept, rising.
        gradients: [K, S, R], one loss a draw of labels.
    """

    inputs: Tensor
    outputs: Tensor
    gradients: Tensor


@dataclass(frozen=True)
class HeadGradients:
    """The losses' gradients at the head's input.

    Attributes:
        labels: [K, T] int64, drawn by the model.
        gradients: [K, T, C].
    """

    labels: Tensor
    gradients: Tensor


class LayerStream:
    """Runs windows of one length forwards and backwards; states and gradients stay on the CPU."""

    def __init__(
        self, config: DecoderConfig, read: ReadParameter, length: int, device: str = "cpu"
    ) -> None:
        self.config, self.device = config, device
        self._read = read
        tables = rotation_tables(config, length)
        cos, sin = (torch.from_numpy(part).to(device) for part in tables)
        mask = torch.ones(1, length, dtype=torch.int64, device=device)
        self._positions = operators.locate_positions(mask, cos, sin)
        self._past = torch.empty(1, config.num_kv_heads, 0, config.head_dim, device=device)

    def read_tensor(self, name: str) -> Tensor:
        """A parameter on the CPU."""
        return torch.from_numpy(self._read(name))

    def run(self, windows: TokenArray) -> list[Tensor]:
        """The input of each layer and, last, the output of the last one; each [B, S, C] float32."""
        states = [operators.embed(self.read_tensor("embed_tokens.weight"), torch.tensor(windows))]
        for index in range(self.config.num_layers):
            states.append(self._run_layer(self.load_layer(index), states[-1]))
        return states

    def normalise(self, states: Tensor) -> Tensor:
        """What the head reads, from the last layer's output."""
        weight = self.read_tensor("norm.weight")
        return operators.rms_norm(states, weight, self.config.rms_norm_epsilon)

    def load_layer(self, index: int) -> DecoderLayer:
        """One layer on the device."""
        return load_layer(self.config, self._read, index).to(self.device)

    def pull_back_norm(self, states: Tensor, gradients: Tensor) -> Tensor:
        """Gradients [K, B, S, C] at the head's input, to those at the last layer's output."""
        with torch.enable_grad():
            x = states.detach().requires_grad_()
            y = self.normalise(x)
        return torch.stack(
            [torch.autograd.grad(y, x, of_draw, retain_graph=True)[0] for of_draw in gradients]
        )

    def pull_back(
        self, layer: DecoderLayer, states: Tensor, gradients: Tensor
    ) -> tuple[list[dict[str, LinearTrace]], Tensor]:
        """Run a layer again from its inputs, and backwards.

        Args:
            layer: on the device.
            states: [B, S, C], its inputs.
            gradients: [K, B, S, C], at its output.

        Returns:
            For each window the traces of the layer's linears by name, on the device; and the
            gradients [K, B, S, C] at the layer's input.
        """
        seen: dict[str, tuple[Tensor, Tensor]] = {}
        for name, part in layer.named_children():
            if isinstance(part, Linear):
                part.register_forward_hook(partial(_keep, seen, name))
        traces, pulled = [], torch.empty_like(gradients)
        for index, window in enumerate(torch.split(states, 1)):
            with torch.enable_grad():
                x = window.detach().to(self.device).requires_grad_()
                y = layer(x, (self._past, self._past), self._positions)[0]
            at_output = gradients[:, index].to(self.device)
            of_window, at_input = _differentiate(y, x, seen, at_output)
            traces.append(of_window)
            pulled[:, index] = at_input
        return traces, pulled

    @torch.no_grad()
    def _run_layer(self, layer: DecoderLayer, states: Tensor) -> Tensor:
        outputs = torch.empty_like(states)
        for index, window in enumerate(torch.split(states, 1)):
            past = (self._past, self._past)
            outputs[index] = layer(window.to(self.device), past, self._positions)[0][0]
        return outputs


def draw_head_gradients(hidden: Tensor, head: Tensor, draws: int, seed: int) -> HeadGradients:
    """Let the model draw labels, and differentiate -log p(label) with respect to the head's input.

    Where p = softmax(h Wᵀ), the gradient at h is Σ_v p_v W_v - W_label.

    Args:
        hidden: [T, C], h.
        head: [V, C], W, on the same device.
        draws: labels per token.
        seed: of the draws.
    """
    generator = torch.Generator(hidden.device).manual_seed(seed)
    labels, gradients = [], []
    for part in split_positions(hidden, head):
        p = torch.softmax(part @ head.T, dim=-1)
        drawn = torch.multinomial(p, draws, replacement=True, generator=generator).T
        labels.append(drawn)
        gradients.append(p @ head - head[drawn])
    return HeadGradients(torch.cat(labels, dim=1), torch.cat(gradients, dim=1))


def split_positions(hidden: Tensor, head: Tensor) -> tuple[Tensor, ...]:
    """Cut [T, C] so that logits of a part are few enough for memory."""
    return torch.split(hidden, max(1, _LOGITS_AT_ONCE // len(head)))


def _keep(
    seen: dict[str, tuple[Tensor, Tensor]],
    name: str,
    _linear: nn.Module,
    inputs: tuple[Tensor, ...],
    output: Tensor,
) -> None:
    """Forward hook: the linear's input, and its output as part of the graph."""
    seen[name] = (inputs[0].detach(), output)


def _differentiate(
    y: Tensor, x: Tensor, seen: dict[str, tuple[Tensor, Tensor]], gradients: Tensor
) -> tuple[dict[str, LinearTrace], Tensor]:
    """K losses' gradients [K, S, C] at y [1, S, C], to those at the linears and at x."""
    targets = [x, *(output for _, output in seen.values())]
    chosen = [_choose_outputs(output) for _, output in seen.values()]
    pulled, kept = [], []
    for draw, gradient in enumerate(gradients):
        is_graph_needed = draw + 1 < len(gradients)
        found = torch.autograd.grad(y, targets, gradient[None], retain_graph=is_graph_needed)
        pulled.append(found[0][0])
        kept.append([g[0][:, columns] for g, columns in zip(found[1:], chosen, strict=True)])
    traces = {
        name: LinearTrace(seen[name][0][0], columns, torch.stack(of_draws))
        for name, columns, *of_draws in zip(seen, chosen, *kept, strict=True)
    }
    return traces, torch.stack(pulled)


def _choose_outputs(output: Tensor) -> Tensor:
    """At most `_MOST_OUTPUTS` indices into the last axis, evenly spread."""
    count = output.shape[-1]
    kept = min(count, _MOST_OUTPUTS)
    return torch.arange(kept, device=output.device) * count // kept
