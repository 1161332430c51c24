"""How much memory the rows of a batch may take, and the shape of their buffers within it.

All rows share one buffer per layer, so that memory is the number of slots times the capacity, which
is that of the longest row.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from glm_runtime.errors import PromptError
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.decoding import check_length
from glm_runtime.graph.kv_cache import choose_capacity
from glm_runtime.health import count_cache_bytes

_GIGABYTE = 10**9


class BufferShape(NamedTuple):
    """Number of rows that have memory, and number of tokens of each."""

    num_slots: int
    capacity: int


@dataclass(frozen=True)
class CacheBudget:
    """Memory of the KV cache.

    Attributes:
        model: the shape of the model.
        max_rows: the largest number of rows.
        context_bytes: the largest number of bytes; `None` sets no limit.
    """

    model: ModelEntry
    max_rows: int
    context_bytes: int | None

    @cached_property
    def token_bytes(self) -> int:
        """Bytes of the keys and values of one token."""
        return count_cache_bytes(self.model, 1)

    @cached_property
    def longest(self) -> int:
        """The largest number of tokens of a row."""
        if self.context_bytes is None:
            return self.model.context_length
        return min(self.context_bytes // self.token_bytes, self.model.context_length)

    def check(self, num_tokens: int) -> None:
        """Refuse a sequence that does not fit even alone.

        Raises:
            PromptError: it is longer than the context, or than the memory allows.
        """
        check_length(num_tokens, self.model)
        if num_tokens > self.longest:
            needed = num_tokens * self.token_bytes / _GIGABYTE
            raise PromptError(
                f"the sequence has {num_tokens} tokens, which need {needed:.2f} GB of KV cache, "
                f"but the memory for contexts holds {self.longest} tokens; shorten the prompt, or "
                "give more memory for them (--context-memory of glm-run serve)."
            )

    def plan(self, num_rows: int, length: int, old: BufferShape) -> BufferShape | None:
        """Choose the shape of the buffers.

        Args:
            num_rows: number of rows, at most `max_rows`.
            length: number of tokens of the longest row, at most `longest`.
            old: the shape that the buffers have.

        Returns:
            `old` if it is large enough, a larger one, or one of fewer slots or less capacity if
            only that fits; `None` if there is not enough memory.
        """
        if num_rows <= old.num_slots and length <= old.capacity:
            return old
        wanted = choose_capacity(length, 0, self.model)
        grown = old.capacity
        if length > grown:
            grown = choose_capacity(length, old.capacity, self.model)
        if self.context_bytes is None:
            return BufferShape(self.max_rows, grown)
        tokens = self.context_bytes // self.token_bytes
        # Doubled, so that rows are seldom moved; kept prefixes have the other half of the memory.
        slots = 2 * old.num_slots if num_rows > old.num_slots else old.num_slots
        slots = min(max(num_rows, slots), self.max_rows)
        if 2 * slots * grown <= tokens:
            return BufferShape(slots, grown)
        for capacity in (grown, wanted):
            if num_rows * capacity <= tokens:
                return BufferShape(num_rows, capacity)
        # All that is left, because a buffer that grew by one token would be copied at every step.
        capacity = min(tokens // num_rows, self.model.context_length)
        return BufferShape(num_rows, capacity) if length <= capacity else None

    def trim(self, num_rows: int, length: int, old: BufferShape) -> BufferShape:
        """Return the shape after rows have left; memory that they used alone is given back."""
        if self.context_bytes is None:
            return old
        if num_rows == 0:
            return BufferShape(0, 0)
        wanted = choose_capacity(length, 0, self.model)
        return BufferShape(old.num_slots, wanted if 2 * wanted <= old.capacity else old.capacity)

    def trim_alone(self, length: int, old: BufferShape) -> BufferShape:
        """Return the shape for the only row of `length` tokens, so that others fit beside it."""
        return BufferShape(1, min(choose_capacity(length, 0, self.model), old.capacity))

    def measure(self, shape: BufferShape) -> int:
        """Return the bytes of buffers of a shape."""
        return shape.num_slots * shape.capacity * self.token_bytes
