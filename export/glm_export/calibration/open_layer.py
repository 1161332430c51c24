"""One decoder layer on a device, run piece by piece so that each matrix's inputs can be seen.

Knows nothing of codes. Read `decoder.py` before, `walk.py` after.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from glm_export.model import operators
from glm_export.model.architectures import DecoderConfig
from glm_export.model.decoder import DecoderLayer
from glm_export.model.operators import Positions
from glm_export.model.rotary import rotation_tables
from glm_quantize import FloatArray

LINEARS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


class OpenLayer:
    """One layer, taken apart between its matrices so that each one's inputs can be seen."""

    def __init__(
        self, config: DecoderConfig, index: int, module: DecoderLayer, device: str
    ) -> None:
        self.index, self.module = index, module.to(device)
        self._config, self._device = config, device
        self._positions: Positions | None = None
        self._attended: list[Tensor] = []
        self._gated: list[Tensor] = []
        self._streams: list[Tensor] = []
        self._empty = (config.num_kv_heads, 0, config.head_dim)

    def get_weight(self, name: str) -> Tensor:
        """The weight [N, C] of one of the four, which may be changed in place."""
        weight: Tensor = getattr(self.module, name).weight
        return weight

    def start(self, name: str, batches: list[FloatArray]) -> list[Tensor]:
        """The inputs of one of the four, computed with the weights before it as they are now."""
        module = self.module
        if name == "qkv_proj":
            return [module.input_layernorm(self._load(x)).cpu() for x in batches]
        if name == "o_proj":
            self._attended = [self._attend(self._load(x)).cpu() for x in batches]
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
        """The layer's outputs."""
        for x, gated in zip(self._streams, self._gated, strict=True):
            y = self.module.add_mlp(x.to(self._device), gated.to(self._device))
            yield y.cpu().numpy()

    def _load(self, x: FloatArray) -> Tensor:
        return torch.from_numpy(x).to(self._device)

    def _attend(self, x: Tensor) -> Tensor:
        empty = torch.empty(len(x), *self._empty, device=x.device)
        if self._positions is None:
            self._positions = self._locate_windows(x.shape[1])
        return self.module.attend(x, (empty, empty), self._positions)[0]

    def _locate_windows(self, length: int) -> Positions:
        """Windows start at position 0 and are all of one length."""
        tables = (torch.from_numpy(part) for part in rotation_tables(self._config, length))
        cos, sin = (table.to(self._device) for table in tables)
        mask = torch.ones(1, length, dtype=torch.int64, device=self._device)
        return operators.locate_positions(mask, cos, sin)
