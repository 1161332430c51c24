"""Keys and values of the tokens so far: one buffer each per layer, read and written in place.

The same buffer is bound as past and as present, so a step copies nothing. Letters: B batch (1),
H key/value heads, C capacity, D head size. Read `decoding.py` for how it is bound.
"""

from typing import TYPE_CHECKING

import numpy as np

from glm_runtime.arrays import CacheArray
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.inference import import_onnxruntime

if TYPE_CHECKING:
    import onnxruntime

_GRAIN = 256  # tokens


class KvCache:
    """Buffers [1, H, C, D] that grow with the tokens, up to the context length."""

    def __init__(self, model: ModelEntry, memory: str) -> None:
        """`memory`: where the buffers lie, "cpu" or "cuda"."""
        self._model = model
        self._memory = memory
        self.length = 0
        self.capacity = 0
        self.buffers: dict[str, onnxruntime.OrtValue] = {}

    def reserve(self, length: int) -> None:
        """Make room for `length` tokens; `buffers` is then another dict, to be bound again.

        The tokens so far are kept. On a GPU they travel through the host, which is rare.
        """
        if length > self.capacity:
            capacity = choose_capacity(length, self.capacity, self._model)
            self._replace(capacity, {name: self._read(name) for name in self.buffers})

    def bind(self, binding: "onnxruntime.IOBinding") -> None:
        """Have the graph read and write these buffers."""
        for name, buffer in self.buffers.items():
            binding.bind_ortvalue_input(f"past_key_values.{name}", buffer)
            binding.bind_ortvalue_output(f"present.{name}", buffer)

    def copy_values(self) -> dict[str, CacheArray]:
        """The keys and values of the tokens so far, [H, length, D] by "layer.key|value"."""
        return {name: self._read(name).copy() for name in self.buffers}

    def load_values(self, values: dict[str, CacheArray], length: int) -> None:
        """Take over what `copy_values` of another cache of this model gave, in new buffers."""
        self._replace(choose_capacity(length, 0, self._model), values)
        self.length = length

    def _read(self, name: str) -> CacheArray:
        """What a buffer holds [H, length, D]: on the CPU a view that does not keep it alive."""
        values: CacheArray = self.buffers[name].numpy()[0, :, : self.length]
        return values

    def _replace(self, capacity: int, values: dict[str, CacheArray]) -> None:
        """New buffers in place of all old ones, at once: an interruption leaves the old ones."""
        names = list_buffers(self._model)
        buffers = {name: self._make_buffer(capacity, values.get(name)) for name in names}
        self.buffers, self.capacity = buffers, capacity

    def _make_buffer(self, capacity: int, values: CacheArray | None) -> "onnxruntime.OrtValue":
        model = self._model
        shape = (1, model.num_kv_heads, capacity, model.head_dim)
        # Zeros, not empty: a masked position must not bring a NaN into a product.
        buffer = np.zeros(shape, model.cache_dtype)
        if values is not None:
            buffer[0, :, : values.shape[1]] = values
        return import_onnxruntime().OrtValue.ortvalue_from_numpy(buffer, self._memory, 0)


def choose_capacity(length: int, old: int, model: ModelEntry) -> int:
    """Tokens to make room for when `length` are more than the `old` capacity.

    A quarter more than before: a token is then copied about four times on average over the whole
    growth, and little is taken that is never used.
    """
    wanted = max(length, old + old // 4)
    return min(-(-wanted // _GRAIN) * _GRAIN, model.context_length)


def list_buffers(model: ModelEntry) -> list[str]:
    """Names of a cache's buffers, as the graph's inputs and outputs end with them."""
    layers = range(model.num_layers)
    return [f"{layer}.{part}" for layer in layers for part in ("key", "value")]
