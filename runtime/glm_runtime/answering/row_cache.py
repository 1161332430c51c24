"""The KV caches of all rows and the kept prefixes, within one bound of memory.

Rows win: prefixes are evicted where a row needs their memory. A row that ends as the last one stays
in its buffer if it is too long to be kept as a prefix beside it, until another row is opened. While
the buffers of the rows change their shape, one buffer more is needed than the bound says.
"""

from collections.abc import Iterator, Sequence

from glm_runtime.answering.batch_decoder import OPEN_ROW, BatchDecoder
from glm_runtime.answering.cache_budget import BufferShape, CacheBudget
from glm_runtime.answering.device_row import DeviceRow
from glm_runtime.answering.events import SchedulerLimits
from glm_runtime.answering.prefix_files import PrefixFiles
from glm_runtime.answering.prefix_tree import PrefixTree
from glm_runtime.arrays import CacheArray
from glm_runtime.errors import GenerationError
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
        self._parked: Sequence[int] = ()  # tokens of the ended row that is left as the open row
        self._stored: Iterator[CacheArray] | None = None  # what the open row has still to load

    @property
    def row_bytes(self) -> int:
        """Bytes of the buffers of all rows."""
        return self.budget.measure(self._shape)

    @property
    def prefix_bytes(self) -> int:
        """Bytes of the kept prefixes."""
        return self._tree.size_bytes

    @property
    def is_loading(self) -> bool:
        """Whether `load_stored` must be called before the open row is read."""
        return self._stored is not None

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
        if self._parked:
            num_rows, length = 1, len(self._parked)
        self.resize(self.budget.trim(num_rows, length, self._shape))

    def open_row(
        self,
        tokens: Sequence[int],
        others: Sequence[Sequence[int]],
        shape: BufferShape,
        most: int | None = None,
    ) -> None:
        """Open a row for a sequence, which begins with the longest prefix that is known.

        Args:
            tokens: the sequence; its last token is not loaded, because its logits are needed.
            others: the tokens of the complete rows.
            shape: the new shape of the buffers.
            most: the largest number of tokens to load; `None` sets no limit.

        Raises:
            GenerationError: there is not enough memory; all rows are then lost.
        """
        known = tokens[: len(tokens) - 1 if most is None else min(most, len(tokens) - 1)]
        # Marked as used, so that it is not evicted for the row.
        is_resumed = self._resume(known, self._tree.measure(known))
        self.resize(shape)
        if not is_resumed:
            self._begin(known, others)
        if self._files is not None:
            self._stored = self._files.read(known, self.rows.open_length or 0)

    def load_stored(self, most_tokens: int) -> int:
        """Load the next blocks of the open row from disk; return the number of their tokens.

        No block is begun after `most_tokens`, because all rows wait meanwhile.
        """
        parts: list[CacheArray] = []
        count = 0
        while self._stored is not None and count < most_tokens:
            values = next(self._stored, None)
            if values is None:
                self._stored = None
            else:
                parts.append(values)
                count += values.shape[2]
        self.rows.load(parts)
        return count

    def close_row(self, tokens: Sequence[int], row: int) -> None:
        """Remove a row and keep its prefix, as far as memory allows.

        Args:
            tokens: at least the tokens that the row has read.
            row: its number, or `OPEN_ROW`; the last row takes the number of a complete one.
        """
        if row == OPEN_ROW:
            self._stored = None
        length = self.rows.open_length if row == OPEN_ROW else self.rows.lengths[row]
        assert length is not None
        read = tokens[:length]
        if length >= _SHORTEST_PREFIX and self._limit_bytes:
            is_alone = self.rows.num_rows + (self.rows.open_length is not None) == 1
            if is_alone and not self._slim(length):
                return
            self._keep(read, row)
            if is_alone and length - self._tree.measure(read) >= _SHORTEST_PREFIX:
                self._park(read, row)
                return
        if row == OPEN_ROW:
            self.rows.drop()
        else:
            self.rows.remove(row)

    def drop_rows(self) -> None:
        """Remove all rows and free their memory; kept prefixes stay."""
        self.rows.clear()
        self._parked, self._stored = (), None
        self._tree.resize(self._limit_bytes)

    def clear(self) -> None:
        """Remove all rows and kept prefixes, and free their memory."""
        self._tree.resize(0)
        self.drop_rows()

    def _slim(self, length: int) -> bool:
        """Free memory beside the only row if the tree needs it; return False if it is lost."""
        free = self._limit_bytes - self.budget.measure(self._shape)
        if length * self.budget.token_bytes > free:
            try:
                self.resize(self.budget.trim_alone(length, self._shape))
            except GenerationError:
                return False
        return True

    def _keep(self, tokens: Sequence[int], row: int) -> None:
        """Copy a row into the tree, and have what the tree holds of it written to disk."""
        self._tree.insert(tokens, lambda start, stop: self.rows.copy(row, start, stop))
        if self._files is not None:
            self._files.write(tokens, list(self._tree.read(tokens)))

    def _park(self, tokens: Sequence[int], row: int) -> None:
        """Leave a row, which ends, in its buffer as the open row."""
        self._parked = tokens
        if row != OPEN_ROW:
            self.rows.reopen()

    def _resume(self, known: Sequence[int], kept: int) -> bool:
        """Continue the row that was left, if it knows more than the tree; else remove it."""
        if not self._parked:
            return False
        shared = count_shared(self._parked, known)
        self._parked = ()
        if shared < max(_SHORTEST_PREFIX, kept + 1):
            self.rows.drop()
            return False
        self.rows.shorten(shared)
        return True

    def _begin(self, known: Sequence[int], others: Sequence[Sequence[int]]) -> None:
        """Open a row with the longest prefix in memory."""
        self.rows.open()
        row, shared = self._find_row(known, others)
        kept = self._tree.measure(known)
        if max(shared, kept) < _SHORTEST_PREFIX:
            return
        if shared >= kept:
            self.rows.share(row, shared)
        else:
            self.rows.load(self._tree.read(known))

    def _find_row(self, tokens: Sequence[int], others: Sequence[Sequence[int]]) -> tuple[int, int]:
        """Return the row that shares the longest prefix with these tokens, and its length."""
        best, longest = 0, 0
        for row, (other, length) in enumerate(zip(others, self.rows.lengths, strict=True)):
            shared = min(count_shared(other, tokens), length)
            if shared > longest:
                best, longest = row, shared
        return best, longest
