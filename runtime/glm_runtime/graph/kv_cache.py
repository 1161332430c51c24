"""The KV cache: one buffer for keys and one for values per layer, updated in place.

The same buffer is bound as past and as present, so a step copies nothing. Letters: B batch (1),
H key/value heads, C capacity, D head size. Read `decoding.py` for how it is bound.
"""

from typing import TYPE_CHECKING

from glm_runtime.arrays import CacheArray
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.inference import import_onnxruntime
from glm_runtime.graph.machine import allocate_zeros

if TYPE_CHECKING:
    import onnxruntime

_GRANULARITY = 256  # tokens; the capacity is a multiple of it


class KvCache:
    """Buffers [1, H, C, D] that grow with the tokens, up to the context length."""

    def __init__(self, model: ModelEntry, memory: str) -> None:
        """Make an empty cache in the memory of "cpu" or "cuda"."""
        self._model = model
        self._memory = memory
        self.length = 0
        self.capacity = 0
        self.buffers: dict[str, onnxruntime.OrtValue] = {}

    def reserve(self, length: int) -> None:
        """Make room for `length` tokens and keep the tokens so far.

        If the buffers grow, `buffers` is a new dictionary that must be bound again. On a GPU the
        values are then copied through the host.
        """
        if length > self.capacity:
            capacity = choose_capacity(length, self.capacity, self._model)
            self._replace(capacity, {name: self._read(name) for name in self.buffers})

    def bind(self, binding: "onnxruntime.IOBinding") -> None:
        """Bind the buffers as past and present of every layer."""
        for name, buffer in self.buffers.items():
            binding.bind_ortvalue_input(f"past_key_values.{name}", buffer)
            binding.bind_ortvalue_output(f"present.{name}", buffer)

    def copy_values(self) -> dict[str, CacheArray]:
        """Return the keys and values of the tokens so far, [H, length, D] by buffer name."""
        return {name: self._read(name).copy() for name in self.buffers}

    def load_values(self, values: dict[str, CacheArray], length: int) -> None:
        """Replace the content by what `copy_values` of another cache returned.

        Args:
            values: keys and values [H, length, D] by buffer name.
            length: number of tokens.
        """
        self._replace(choose_capacity(length, 0, self._model), values)
        self.length = length

    def _read(self, name: str) -> CacheArray:
        """Return [H, length, D] of a buffer; on the CPU a view that does not keep it alive."""
        values: CacheArray = self.buffers[name].numpy()[0, :, : self.length]
        return values

    def _replace(self, capacity: int, values: dict[str, CacheArray]) -> None:
        """Replace all buffers in one assignment, so that an interruption leaves the old ones."""
        names = list_buffers(self._model)
        buffers = {name: self._make_buffer(capacity, values.get(name)) for name in names}
        self.buffers, self.capacity = buffers, capacity

    def _make_buffer(self, capacity: int, values: CacheArray | None) -> "onnxruntime.OrtValue":
        model = self._model
        shape = (1, model.num_kv_heads, capacity, model.head_dim)
        # Zeros, because a NaN at a masked position would spread through the product.
        buffer = allocate_zeros(shape, model.cache_dtype)
        if values is not None:
            buffer[0, :, : values.shape[1]] = values
        return import_onnxruntime().OrtValue.ortvalue_from_numpy(buffer, self._memory, 0)


def choose_capacity(length: int, old: int, model: ModelEntry) -> int:
    """Return the new capacity for `length` tokens, which are more than the `old` capacity.

    The capacity grows by at least a quarter, so that each token is copied about four times on
    average, and little memory stays unused.
    """
    wanted = max(length, old + old // 4)
    return min(-(-wanted // _GRANULARITY) * _GRANULARITY, model.context_length)


def list_buffers(model: ModelEntry) -> list[str]:
    """Return the buffers' names, which are the ends of the graph's tensor names."""
    layers = range(model.num_layers)
    return [f"{layer}.{part}" for layer in layers for part in ("key", "value")]
