"""A decoder layer that is run matrix by matrix, so that calibration sees the inputs of each.

Read `decoder.py` before and `walk.py` after.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from glm_export.model.layer_stream import LayerStream
from glm_quantize import FloatArray

LINEARS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


class OpenLayer:
    """A decoder layer whose matrices are run one after the other."""

    def __init__(self, stream: LayerStream, index: int) -> None:
        self.index, self.module = index, stream.load_layer(index)
        self._stream, self._device = stream, stream.device
        self._attended: list[Tensor] = []
        self._gated: list[Tensor] = []
        self._streams: list[Tensor] = []

    def get_weight(self, name: str) -> Tensor:
        """Return the weight [N, C] of a matrix, which the caller may change in place."""
        weight: Tensor = getattr(self.module, name).weight
        return weight

    def start(self, name: str, batches: list[FloatArray]) -> list[Tensor]:
        """Compute the inputs of a matrix with the present weights of the matrices before it."""
        module = self.module
        if name == "qkv_proj":
            return [module.input_layernorm(self._load(x)).cpu() for x in batches]
        if name == "o_proj":
            self._attended = [self._stream.attend(module, self._load(x))[0].cpu() for x in batches]
            return self._attended
        if name == "gate_up_proj":
            pairs = zip(batches, self._attended, strict=True)
            self._streams = [
                module.add_attention(self._load(x), a.to(self._device)).cpu() for x, a in pairs
            ]
            return [
                module.post_attention_layernorm(x.to(self._device)).cpu() for x in self._streams
            ]
        self._attended = []
        self._gated = [module.gate(x.to(self._device)).cpu() for x in self._streams]
        return self._gated

    def finish(self) -> Iterable[FloatArray]:
        """Compute the layer's outputs."""
        for x, gated in zip(self._streams, self._gated, strict=True):
            y = self.module.add_mlp(x.to(self._device), gated.to(self._device))
            yield y.cpu().numpy()

    def _load(self, x: FloatArray) -> Tensor:
        return torch.from_numpy(x).to(self._device)
