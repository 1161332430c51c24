"""Several sequences of different lengths in one run of the graph, on the CPU.

One buffer per layer holds all rows. A prompt is read into its row alone; then all rows take one
token each. Read `decoding.py` before. Letters: R rows, H key/value heads,
C capacity, D head size, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np

from glm_runtime.arrays import CacheArray, FloatArray, TokenArray
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.decoding import PREFILL_CHUNK, check_length, explain_failure
from glm_runtime.graph.inference import OpenGraph, import_onnxruntime
from glm_runtime.graph.kv_cache import choose_capacity, list_buffers


class BatchDecoder:
    """The rows of a batch, which are added and removed one by one.

    Attributes:
        lengths: number of tokens in each row.
    """

    def __init__(self, graph: OpenGraph, model: ModelEntry, max_rows: int) -> None:
        self._graph = graph
        self._model = model
        self._max_rows = max_rows
        self._capacity = 0
        self._buffers: dict[str, CacheArray] = {}
        self._ort_value = import_onnxruntime().OrtValue
        self.lengths: list[int] = []

    @property
    def num_rows(self) -> int:
        """Number of rows in use; they are numbered from 0 without a gap."""
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
        row = self.num_rows
        if source is not None:
            for buffer in self._buffers.values():
                buffer[row, :, :shared] = buffer[source, :, :shared]
        self.lengths.append(shared)
        try:
            for start in range(shared, len(tokens), PREFILL_CHUNK):
                chunk = tokens[start : start + PREFILL_CHUNK]
                mask = np.ones((1, start + len(chunk)), np.int64)
                logits = self._run(np.array([chunk], np.int64), mask, row, row + 1)
                self.lengths[row] += len(chunk)
        except BaseException:
            self.lengths.pop()
            raise
        last: FloatArray = logits[0]
        return last

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
        return logits

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

    def _reserve(self, length: int) -> None:
        """Make room for `length` tokens in every row; the buffers grow by at least a quarter."""
        if length <= self._capacity:
            return
        capacity = choose_capacity(length, self._capacity, self._model)
        model, longest = self._model, max(self.lengths, default=0)
        shape = (self._max_rows, model.num_kv_heads, capacity, model.head_dim)
        buffers = {}
        for name in list_buffers(model):
            # Zeros, because a NaN at a masked position would spread through the product.
            buffer = np.zeros(shape, model.cache_dtype)
            if longest:
                buffer[:, :, :longest] = self._buffers[name][:, :, :longest]
            buffers[name] = buffer
        self._buffers, self._capacity = buffers, capacity  # one assignment: an interruption is safe

    def _run(self, ids: TokenArray, mask: TokenArray, first: int, last: int) -> FloatArray:
        """Run rows first ... last - 1; return the logits [rows, V] of their last tokens."""
        binding = self._graph.session.io_binding()
        for name, buffer in self._buffers.items():
            value = self._ort_value.ortvalue_from_numpy(buffer[first:last])
            binding.bind_ortvalue_input(f"past_key_values.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
        logits = np.empty((last - first, 1, self._model.vocab_size), self._graph.logits_dtype)
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", mask)
        binding.bind_ortvalue_output("logits", self._ort_value.ortvalue_from_numpy(logits))
        place = f"with {last - first} rows at token {mask.shape[1]}"
        with explain_failure(place, "try fewer rows, or "):
            self._graph.run(binding)
        found: FloatArray = logits[:, 0]
        return found
