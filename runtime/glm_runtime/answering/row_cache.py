"""The KV caches of all rows and the kept prefixes, within one bound of memory.

Rows win: prefixes are evicted where a row needs their memory. While the buffers of the rows change
their shape, one buffer more is needed than the bound says.
"""

from collections.abc import Sequence

from glm_runtime.answering.batch_decoder import OPEN_ROW, BatchDecoder
from glm_runtime.answering.cache_budget import BufferShape, CacheBudget
from glm_runtime.answering.device_row import DeviceRow
from glm_runtime.answering.events import SchedulerLimits
from glm_runtime.answering.prefix_files import PrefixFiles
from glm_runtime.answering.prefix_tree import PrefixTree
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.decoding import count_shared
from glm_runtime.graph.inference import OpenGraph

# A shorter common prefix is read faster than it is found and copied.
_SHORTEST_PREFIX = 8


class RowCache:
    """Rows and kept prefixes.

    Attributes:
        rows: runs the graph on the rows.
        budget: tells how much memory rows need.
        max_rows: the largest number of rows, which is 1 on other devices than the CPU.
    """

    def __init__(
        self,
        graph: OpenGraph,
        model: ModelEntry,
        limits: SchedulerLimits,
        files: PrefixFiles | None,
    ) -> None:
        self.max_rows = limits.max_rows if graph.device == "cpu" else 1
        self.budget = CacheBudget(model, self.max_rows, limits.context_bytes)
        self.rows: BatchDecoder | DeviceRow
        if graph.device == "cpu":
            self.rows = BatchDecoder(graph, model, self.max_rows)
        else:
            self.rows = DeviceRow(graph, model)
        self._files = files
        self._limit_bytes = limits.context_bytes or 0
        self._tree = PrefixTree(self.budget.token_bytes, self._limit_bytes)

    @property
    def row_bytes(self) -> int:
        """Bytes of the buffers of all rows."""
        return self.budget.measure(self._shape)

    @property
    def prefix_bytes(self) -> int:
        """Bytes of the kept prefixes."""
        return self._tree.size_bytes

    @property
    def _shape(self) -> BufferShape:
        return BufferShape(self.rows.num_slots, self.rows.capacity)

    def plan(self, num_rows: int, length: int) -> BufferShape | None:
        """Return a shape with room for so many rows of `length` tokens; `None` without memory."""
        return self.budget.plan(num_rows, length, self._shape)

    def resize(self, shape: BufferShape) -> None:
        """Change the shape of the buffers, which must hold all rows.

        Raises:
            GenerationError: there is not enough memory; all rows are then lost.
        """
        if shape != self._shape:
            self._tree.resize(max(self._limit_bytes - self.budget.measure(shape), 0))
            self.rows.resize(*shape)

    def trim(self, num_rows: int, length: int) -> None:
        """Give back memory that only rows needed that have left; see `resize`."""
        self.resize(self.budget.trim(num_rows, length, self._shape))

    def open_row(
        self,
        tokens: Sequence[int],
        others: Sequence[Sequence[int]],
        shape: BufferShape,
        most: int | None = None,
    ) -> int:
        """Open a row for a sequence, which begins with the longest prefix that is known.

        Args:
            tokens: the sequence; its last token is not loaded, because its logits are needed.
            others: the tokens of the complete rows.
            shape: the new shape of the buffers.
            most: the largest number of tokens to load; `None` sets no limit.

        Returns:
            the number of tokens that were loaded.

        Raises:
            GenerationError: there is not enough memory; all rows are then lost.
        """
        known = tokens[: len(tokens) - 1 if most is None else min(most, len(tokens) - 1)]
        self._tree.measure(known)  # marked as used, so that it is not evicted for the row
        self.resize(shape)
        self.rows.open()
        row, shared = self._find_row(known, others)
        kept = self._tree.measure(known)
        if max(shared, kept) >= _SHORTEST_PREFIX:
            if shared >= kept:
                self.rows.share(row, shared)
            else:
                self.rows.load(self._tree.read(known))
        if self._files is not None:
            self.rows.load(self._files.read(known, self.rows.open_length or 0))
        return self.rows.open_length or 0

    def close_row(self, tokens: Sequence[int], row: int) -> None:
        """Remove a row and keep its prefix, as far as memory allows.

        Args:
            tokens: at least the tokens that the row has read.
            row: its number, or `OPEN_ROW`; the last row takes the number of a complete one.
        """
        length = self.rows.open_length if row == OPEN_ROW else self.rows.lengths[row]
        assert length is not None
        if length >= _SHORTEST_PREFIX and self._limit_bytes:
            read = tokens[:length]
            self._tree.insert(read, lambda start, stop: self.rows.copy(row, start, stop))
            if self._files is not None:
                self._files.write(read, list(self._tree.read(read)))
        if row == OPEN_ROW:
            self.rows.drop()
        else:
            self.rows.remove(row)

    def clear(self) -> None:
        """Remove all rows and kept prefixes, and free their memory."""
        self.rows.clear()
        self._tree.resize(0)
        self._tree.resize(self._limit_bytes)

    def _find_row(self, tokens: Sequence[int], others: Sequence[Sequence[int]]) -> tuple[int, int]:
        """Return the row that shares the longest prefix with these tokens, and its length."""
        best, longest = 0, 0
        for row, (other, length) in enumerate(zip(others, self.rows.lengths, strict=True)):
            shared = min(count_shared(other, tokens), length)
            if shared > longest:
                best, longest = row, shared
        return best, longest
