"""The backward pass through the decoder, layer by layer, with one layer's weights in memory.

The losses are -log p(label), summed over tokens, with labels sampled from the model itself. The
mean square of their gradients is the Fisher information, the second derivative of the KL
divergence. Read `layer_stream.py` before and `sensitivity.py` after.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from glm_export.even_sample import choose_evenly
from glm_export.model.decoder import DecoderLayer, Linear
from glm_export.model.layer_stream import LayerStream

# Number of logits in memory at the same time: 64 MiB of float32.
_LOGITS_AT_ONCE = 1 << 24
# Gradients are kept for at most this many outputs of a linear layer, a sample of all outputs.
_MOST_OUTPUTS = 2048


@dataclass(frozen=True)
class LinearTrace:
    """Inputs and gradients of a linear layer in one window of S tokens.

    Attributes:
        inputs: [S, C].
        outputs: [R] sorted indices of the outputs whose gradients are kept.
        gradients: [K, S, R] gradients of the K losses at these outputs.
    """

    inputs: Tensor
    outputs: Tensor
    gradients: Tensor


@dataclass(frozen=True)
class HeadGradients:
    """Gradients of the K losses at the head's input.

    Attributes:
        labels: [K, T] int64, sampled by the model.
        gradients: [K, T, C].
    """

    labels: Tensor
    gradients: Tensor


def pull_back_norm(stream: LayerStream, states: Tensor, gradients: Tensor) -> Tensor:
    """Compute gradients [K, B, S, C] at the last layer's output from those at the head's input."""
    with torch.enable_grad():
        x = states.detach().requires_grad_()
        y = stream.normalise(x)
    return torch.stack(
        [torch.autograd.grad(y, x, of_draw, retain_graph=True)[0] for of_draw in gradients]
    )


def pull_back(
    stream: LayerStream, layer: DecoderLayer, states: Tensor, gradients: Tensor
) -> tuple[list[dict[str, LinearTrace]], Tensor]:
    """Run a layer again from its inputs, and run its backward pass.

    Args:
        stream: the decoder.
        layer: the layer, on the device.
        states: [B, S, C] inputs of the layer.
        gradients: [K, B, S, C] gradients at its output.

    Returns:
        The traces of the linear layers by name for each window, on the device, and the gradients
        [K, B, S, C] at the layer's input.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name, part in layer.named_children():
        if isinstance(part, Linear):
            part.register_forward_hook(partial(_keep, seen, name))
    traces, pulled = [], torch.empty_like(gradients)
    for index, window in enumerate(torch.split(states, 1)):
        with torch.enable_grad():
            x = window.detach().to(stream.device).requires_grad_()
            y = stream.run_layer(layer, x)
        at_output = gradients[:, index].to(stream.device)
        of_window, at_input = _differentiate(y, x, seen, at_output)
        traces.append(of_window)
        pulled[:, index] = at_input
    return traces, pulled


def draw_head_gradients(hidden: Tensor, head: Tensor, draws: int, seed: int) -> HeadGradients:
    """Sample labels from the model, and differentiate -log p(label) at the head's input.

    With p = softmax(h Wᵀ), the gradient at h is Σ_v p_v W_v - W_label.

    Args:
        hidden: [T, C], h.
        head: [V, C], W, on the same device.
        draws: number of labels per token.
        seed: seed of the random numbers.
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
    """Split [T, C] into parts whose logits fit in memory."""
    return torch.split(hidden, max(1, _LOGITS_AT_ONCE // len(head)))


def _keep(
    seen: dict[str, tuple[Tensor, Tensor]],
    name: str,
    _linear: nn.Module,
    inputs: tuple[Tensor, ...],
    output: Tensor,
) -> None:
    """Forward hook that keeps a linear layer's input and output."""
    seen[name] = (inputs[0].detach(), output)


def _differentiate(
    y: Tensor, x: Tensor, seen: dict[str, tuple[Tensor, Tensor]], gradients: Tensor
) -> tuple[dict[str, LinearTrace], Tensor]:
    """Compute the K gradients at the linear layers and at x from those at y [1, S, C]."""
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
    """Choose at most `_MOST_OUTPUTS` evenly spaced indices of the last axis."""
    chosen = choose_evenly(output.shape[-1], _MOST_OUTPUTS)
    return torch.from_numpy(chosen).to(output.device)
