"""One row on a device other than the CPU, with the methods of `BatchDecoder`.

Other devices answer one request at a time. Nothing here has been run on a GPU.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from glm_runtime.arrays import CacheArray, FloatArray
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.decoding import DEVICE_CHUNK, PREFILL_CHUNK, Decoder
from glm_runtime.graph.inference import OpenGraph
from glm_runtime.graph.kv_cache import list_buffers


class DeviceRow:
    """A decoder that looks like a batch of at most one row; see `BatchDecoder`.

    Attributes:
        lengths: number of tokens in the complete row, or nothing.
        open_length: number of tokens in the open row; `None` if no row is open.
        num_slots: 1, or 0 as long as there is no decoder.
        capacity: number of tokens that fit.
        largest_read: number of tokens that `read` takes at most.
    """

    def __init__(self, graph: OpenGraph, model: ModelEntry) -> None:
        self._graph = graph
        self._model = model
        self._decoder = Decoder(graph, model)
        self.lengths: list[int] = []
        self.open_length: int | None = None
        self.num_slots = 0
        self.capacity = 0
        self.largest_read = PREFILL_CHUNK if graph.memory == "cpu" else DEVICE_CHUNK
        self._copied: CacheArray | None = None  # the whole row, which is copied segment by segment

    @property
    def num_rows(self) -> int:
        """Number of complete rows, 0 or 1."""
        return len(self.lengths)

    @property
    def chooses_greedily(self) -> bool:
        """Whether `choose_next` can be called."""
        return self._decoder.chooses_greedily

    def choose_next(self, token: int) -> tuple[int, float]:
        """Give the row its next token; return the most likely next one and its logit."""
        chosen = self._decoder.choose_next(token)
        self.lengths = [self._decoder.length]
        return chosen

    def resize(self, num_slots: int, capacity: int) -> None:
        """Make room for `capacity` tokens, or free the memory if there is no slot."""
        if not num_slots:
            self.clear()
            return
        self._decoder.reserve(capacity)
        self.num_slots, self.capacity = 1, capacity

    def clear(self) -> None:
        """Remove the row and free its memory."""
        self._decoder = Decoder(self._graph, self._model)
        self.lengths, self.open_length, self._copied = [], None, None
        self.num_slots = self.capacity = 0

    def open(self) -> None:
        """Begin a row without tokens."""
        self._decoder.truncate(0)
        self.open_length, self._copied = 0, None

    def share(self, source: int, length: int) -> None:
        """Refuse: there is no other row."""
        raise AssertionError(f"row {source} cannot share {length} tokens")

    def load(self, parts: Iterable[CacheArray]) -> None:
        """Append tokens to the open row by their keys and values [B, H, n, D]."""
        names, found = list_buffers(self._model), list(parts)
        if not found:
            return
        if self.open_length:
            before = self._decoder.copy_values()
            found.insert(0, np.stack([before[name] for name in names]))
        values = np.concatenate(found, axis=2)
        self.open_length = values.shape[2]
        self._decoder.load_values(dict(zip(names, values, strict=True)), self.open_length)
        self._decoder.reserve(self.capacity)

    def copy(self, row: int, start: int, stop: int) -> CacheArray:  # noqa: ARG002  # the only row
        """Return keys and values [B, H, n, D] of the tokens start ... stop - 1."""
        if self._copied is None:
            values = self._decoder.copy_values()
            self._copied = np.stack([values[name] for name in list_buffers(self._model)])
        return self._copied[:, :, start:stop].copy()

    def read(self, tokens: Sequence[int], num_logits: int = 1) -> FloatArray:
        """Append tokens to the open row; return the logits [K, V] of its last positions."""
        logits: FloatArray = self._decoder.append(tokens, num_logits)
        self.open_length = self._decoder.length
        return logits

    def finish(self) -> None:
        """Make the open row the complete row."""
        self.lengths, self.open_length = [self._decoder.length], None

    def reopen(self) -> None:
        """Make the complete row the open row."""
        self.lengths, self.open_length = [], self._decoder.length

    def shorten(self, length: int) -> None:
        """Forget the tokens of the open row from position `length` on."""
        self._decoder.truncate(length)
        self.open_length, self._copied = self._decoder.length, None

    def drop(self) -> None:
        """Forget the open row."""
        self.open_length, self._copied = None, None

    def step(self, tokens: Sequence[int]) -> FloatArray:
        """Give the row its next token; return the logits [1, V] after it."""
        logits: FloatArray = self._decoder.append(tokens)
        self.lengths = [self._decoder.length]
        return logits

    def remove(self, row: int) -> None:
        """Remove the row."""
        del self.lengths[row]
        self._copied = None
