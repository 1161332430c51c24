"""Several sequences of different lengths in one run of the graph, on the CPU.

One buffer per layer holds all rows. Rows 0 ... n - 1 take one token each in a step. A prompt is
read into the open row, which is the last slot of the buffers until it is complete. Read
`decoding.py` before. Letters: R rows, B buffers, H key/value heads, C capacity, D head size,
V vocabulary.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from glm_runtime.arrays import CacheArray, FloatArray, TokenArray
from glm_runtime.errors import GenerationError, first_line
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.decoding import PREFILL_CHUNK, check_length, explain_failure
from glm_runtime.graph.inference import OpenGraph, import_onnxruntime
from glm_runtime.graph.kv_cache import choose_capacity, list_buffers
from glm_runtime.graph.machine import allocate_zeros

OPEN_ROW = -1  # the number of the open row


class BatchDecoder:
    """The rows of a batch, which are added and removed one by one.

    Attributes:
        lengths: number of tokens in each complete row.
        open_length: number of tokens in the open row; `None` if no row is open.
        num_slots: number of rows for which the buffers have memory.
        capacity: number of tokens for which each row has memory.
        largest_read: number of tokens that `read` takes at most.
        chooses_greedily: whether `choose_next` of `DeviceRow` can be called.
    """

    largest_read = PREFILL_CHUNK
    chooses_greedily = False

    def __init__(self, graph: OpenGraph, model: ModelEntry, max_rows: int) -> None:
        self._graph = graph
        self._model = model
        self._max_rows = max_rows
        self._buffers: dict[str, CacheArray] = {}
        self._ort_value = import_onnxruntime().OrtValue
        self.lengths: list[int] = []
        self.open_length: int | None = None
        self.num_slots = 0
        self.capacity = 0

    @property
    def num_rows(self) -> int:
        """Number of complete rows; they are numbered from 0 without a gap."""
        return len(self.lengths)

    def add(self, tokens: Sequence[int], source: int | None = None, shared: int = 0) -> FloatArray:
        """Read a prompt into a new row after the last one.

        Args:
            tokens: the prompt.
            source: a row that begins with the same `shared` tokens, which are copied.
            shared: number of tokens to copy, fewer than the prompt has.

        Returns:
            logits [V] after the last token.

        Raises:
            PromptError: the prompt does not fit into the context.
            GenerationError: ONNX Runtime failed.
        """
        check_length(len(tokens), self._model)
        self._reserve(len(tokens))
        self.open()
        try:
            if source is not None:
                self.share(source, shared)
            for start in range(shared, len(tokens), PREFILL_CHUNK):
                logits = self.read(tokens[start : start + PREFILL_CHUNK])
        except BaseException:
            self.drop()
            raise
        self.finish()
        last: FloatArray = logits[-1]
        return last

    def resize(self, num_slots: int, capacity: int) -> None:
        """Change the shape of the buffers and keep all rows, which must fit.

        The buffers are replaced one by one, so that memory for one more is needed for a moment.

        Raises:
            GenerationError: there is not enough memory; all rows are then lost.
        """
        if not num_slots:
            self.clear()
            return
        shape = (num_slots, self._model.num_kv_heads, capacity, self._model.head_dim)
        lengths = dict(enumerate(self.lengths))
        if self.open_length is not None:
            lengths[OPEN_ROW] = self.open_length
        try:
            for name in list_buffers(self._model):
                # Zeros, because a NaN at a masked position would spread through the product.
                buffer = allocate_zeros(shape, self._model.cache_dtype)
                for row, length in lengths.items() if self._buffers else ():
                    buffer[row, :, :length] = self._buffers[name][row, :, :length]
                self._buffers[name] = buffer
        except BaseException as error:
            self.clear()
            if not isinstance(error, MemoryError):
                raise
            raise GenerationError(
                f"the memory for {num_slots} rows of {capacity} tokens is not available "
                f"({first_line(error)}); answer fewer requests at the same time, or shorter ones."
            ) from error
        self.num_slots, self.capacity = num_slots, capacity

    def clear(self) -> None:
        """Remove all rows and free the buffers."""
        self._buffers = {}
        self.lengths, self.open_length = [], None
        self.num_slots = self.capacity = 0

    def open(self) -> None:
        """Begin a row without tokens; only one row can be open, and a slot must be free."""
        self.open_length = 0

    def share(self, source: int, length: int) -> None:
        """Let the open row begin with `length` tokens of another row."""
        for buffer in self._buffers.values():
            buffer[OPEN_ROW, :, :length] = buffer[source, :, :length]
        self.open_length = length

    def load(self, parts: Iterable[CacheArray]) -> None:
        """Append tokens to the open row by their keys and values [B, H, n, D]; see `copy`."""
        start = self._require_open()
        for values in parts:
            stop = start + values.shape[2]
            for buffer, of_buffer in zip(self._buffers.values(), values, strict=True):
                buffer[OPEN_ROW, :, start:stop] = of_buffer
            start = stop
        self.open_length = start

    def copy(self, row: int, start: int, stop: int) -> CacheArray:
        """Return keys and values [B, H, n, D] of the tokens start ... stop - 1 of a row."""
        shape = (len(self._buffers), self._model.num_kv_heads, stop - start, self._model.head_dim)
        values: CacheArray = np.empty(shape, self._model.cache_dtype)
        for of_buffer, buffer in zip(values, self._buffers.values(), strict=True):
            of_buffer[:] = buffer[row, :, start:stop]
        return values

    def read(self, tokens: Sequence[int], num_logits: int = 1) -> FloatArray:
        """Append tokens to the open row, which has room for them.

        Args:
            tokens: the ids, at least one.
            num_logits: number K of last positions whose logits are returned, at most all.

        Returns:
            logits [K, V].

        Raises:
            GenerationError: ONNX Runtime failed; the row is as it was before.
        """
        start = self._require_open()
        mask = np.ones((1, start + len(tokens)), np.int64)
        slot = self.num_slots - 1
        ids = np.array([tokens], np.int64)
        logits: FloatArray = self._run(ids, mask, slot, slot + 1, num_logits)[0]
        self.open_length = start + len(tokens)
        return logits

    def finish(self) -> None:
        """Make the open row a complete row, after the last one."""
        length, row = self._require_open(), self.num_rows
        if row != self.num_slots - 1:
            for buffer in self._buffers.values():
                buffer[row, :, :length] = buffer[OPEN_ROW, :, :length]
        self.lengths.append(length)
        self.open_length = None

    def reopen(self) -> None:
        """Make the only complete row, in the only slot, the open row."""
        assert self.num_slots == self.num_rows == 1
        self.lengths, self.open_length = [], self.lengths[0]

    def shorten(self, length: int) -> None:
        """Forget the tokens of the open row from position `length` on."""
        self.open_length = min(length, self._require_open())

    def drop(self) -> None:
        """Forget the open row."""
        self.open_length = None

    def step(self, tokens: Sequence[int]) -> FloatArray:
        """Give each row its next token; return the logits [R, V] after them.

        Raises:
            PromptError: a row is as long as the context.
            GenerationError: ONNX Runtime failed.
        """
        totals = np.array(self.lengths) + 1
        longest = int(totals.max())
        check_length(longest, self._model)
        self._reserve(longest)
        mask = (np.arange(longest) < totals[:, None]).astype(np.int64)
        logits = self._run(np.array(tokens, np.int64)[:, None], mask, 0, self.num_rows)
        self.lengths = totals.tolist()
        last: FloatArray = logits[:, -1]
        return last

    def remove(self, row: int) -> None:
        """Remove a row; the last row takes its number."""
        last = self.num_rows - 1
        if row != last:
            length = self.lengths[last]
            for buffer in self._buffers.values():
                buffer[row, :, :length] = buffer[last, :, :length]
            self.lengths[row] = length
        self.lengths.pop()

    def reorder(self, sources: Sequence[int], shared: int = 0) -> None:
        """Let row i continue from row `sources[i]`; the number of rows may change.

        Args:
            sources: the old row of each new row.
            shared: length of the prefix that all old and new rows share.
        """
        longest = max(self.lengths[source] for source in sources)
        moved = [row for row, source in enumerate(sources) if row != source]
        origins = [sources[row] for row in moved]
        for buffer in self._buffers.values() if moved else ():
            buffer[moved, :, shared:longest] = buffer[origins, :, shared:longest]
        self.lengths = [self.lengths[source] for source in sources]

    def _require_open(self) -> int:
        assert self.open_length is not None, "no row is open"
        return self.open_length

    def _reserve(self, length: int) -> None:
        """Make room for `length` tokens in every row, if nobody else has done so."""
        if length > self.capacity:
            capacity = choose_capacity(length, self.capacity, self._model)
            self.resize(max(self._max_rows, self.num_slots), capacity)

    def _run(
        self, ids: TokenArray, mask: TokenArray, first: int, last: int, num_logits: int = 1
    ) -> FloatArray:
        """Run slots first ... last - 1; return the logits [rows, K, V] of their last tokens."""
        binding = self._graph.session.io_binding()
        for name, buffer in self._buffers.items():
            value = self._ort_value.ortvalue_from_numpy(buffer[first:last])
            binding.bind_ortvalue_input(f"past_key_values.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
        shape = (last - first, 1, self._model.vocab_size)
        logits = np.empty(shape, self._graph.logits_dtype)
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", mask)
        if num_logits == 1:
            binding.bind_ortvalue_output("logits", self._ort_value.ortvalue_from_numpy(logits))
        else:  # ONNX Runtime refuses a bound buffer of another shape than the declared one
            count = self._ort_value.ortvalue_from_numpy(np.array([num_logits], np.int64))
            binding.bind_ortvalue_input("num_logits_to_keep", count)
            binding.bind_output("logits", "cpu")
        place = f"with {last - first} rows at token {mask.shape[1]}"
        with explain_failure(place, "try fewer rows, or "):
            self._graph.run(binding)
        if num_logits != 1:
            # `numpy()` is a view that does not keep its buffer alive.
            logits = binding.get_outputs()[len(self._buffers)].numpy().copy()
        return logits
