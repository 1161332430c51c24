"""Keys and values of the tokens so far: one buffer each per layer, read and written in place.

The same buffer is bound as past and as present, so a step copies nothing. Letters: B batch (1),
H key/value heads, C capacity, D head size. Read `decoding.py` for how it is bound.
"""

from typing import TYPE_CHECKING

import numpy as np

from glm_runtime.inference import Device, import_onnxruntime
from glm_runtime.manifest import ModelEntry

if TYPE_CHECKING:
    import onnxruntime

_FIRST_CAPACITY = 256


class KvCache:
    """Buffers [1, H, C, D] that grow by doubling, up to the context length."""

    def __init__(self, model: ModelEntry, device: Device) -> None:
        self._model = model
        self._device = device
        self.length = 0
        self.capacity = 0
        self.buffers: dict[str, onnxruntime.OrtValue] = {}

    def reserve(self, length: int) -> bool:
        """Make room for `length` tokens; True when the buffers are new and must be bound again.

        The tokens so far are kept. On a GPU they travel through the host, which doubling makes
        rare.
        """
        if length <= self.capacity:
            return False
        doubled = max(_FIRST_CAPACITY, length, 2 * self.capacity)
        self.capacity = min(doubled, self._model.context_length)
        for layer in range(self._model.num_layers):
            for part in ("key", "value"):
                name = f"{layer}.{part}"
                self.buffers[name] = self._grow(self.buffers.get(name))
        return True

    def _grow(self, old: "onnxruntime.OrtValue | None") -> "onnxruntime.OrtValue":
        model = self._model
        shape = (1, model.num_kv_heads, self.capacity, model.head_dim)
        # Zeros, not empty: a masked position must not bring a NaN into a product.
        values = np.zeros(shape, model.cache_dtype)
        if old is not None:
            values[:, :, : self.length] = old.numpy()[:, :, : self.length]
        return import_onnxruntime().OrtValue.ortvalue_from_numpy(values, self._device, 0)
