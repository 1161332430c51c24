"""The decode step with all tensors in fixed device buffers, which CUDA graphs require.

The attention mask is as long as the cache, and its ones count the tokens, so no shape changes
between steps. This is correct for one new token only, because the graph takes zeros on the right of
the mask for padding. The graph writes the most likely token where the next step reads its input, so
greedy decoding copies two numbers per step to the host.
"""

import itertools
import weakref
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from glm_runtime.arrays import FloatArray
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.inference import GREEDY_TOKEN, OpenGraph, import_onnxruntime
from glm_runtime.graph.kv_cache import KvCache

if TYPE_CHECKING:
    import onnxruntime

GREEDY_LOGIT = "greedy_logit"

_GRAPH_ID = "gpu_graph_id"
_NO_CAPTURE = "-1"
_graph_ids = itertools.count(1)  # ONNX Runtime uses 0 for a run without an id


class FixedStep:
    """Runs decode steps on the buffers of one cache; a cache that grows needs a new object."""

    def __init__(self, graph: OpenGraph, model: ModelEntry, cache: KvCache) -> None:
        self._graph = graph
        self._make = import_onnxruntime().OrtValue.ortvalue_from_numpy
        self._memory = graph.memory
        self._mask_values = np.zeros((1, cache.capacity), np.int64)
        self._num_real = 0
        self._ids = self._place(np.zeros((1, 1), np.int64))
        self._held: int | None = None  # the id that `_ids` holds
        self._mask = self._place(self._mask_values)
        self._logits = self._place(np.zeros((1, 1, model.vocab_size), graph.logits_dtype))
        self._logit = self._place(np.zeros((1, 1), np.float32))
        self._binding = self._bind(cache)
        self._graph_id = next(_graph_ids) if graph.has_cuda_graph else None
        self._options = make_run_options(graph, self._graph_id)
        if self._graph_id is not None:
            weakref.finalize(self, graph.release, self._graph_id)

    def run(self, token: int, length: int) -> None:
        """Read one token after `length` others."""
        if token != self._held:
            self._ids.update_inplace(np.array([[token]], np.int64))
        if self._num_real != length:  # the last run was not the step before this one
            self._mask_values[0] = 0
            self._mask_values[0, :length] = 1
        self._mask_values[0, length] = 1
        self._num_real = length + 1
        self._mask.update_inplace(self._mask_values)
        self._held = None if self._graph.chooses_greedily else token
        self._graph.run(self._binding, self._options)

    def fetch_logits(self) -> FloatArray:
        """Return the logits [1, 1, V] of the last run: a view, valid until the next run."""
        logits: FloatArray = self._logits.numpy()
        return logits

    def fetch_choice(self) -> tuple[int, float]:
        """Return the most likely token after the last run, and its logit."""
        self._held = int(self._ids.numpy()[0, 0])
        return self._held, float(self._logit.numpy()[0, 0])

    def _place(self, values: npt.NDArray[np.generic]) -> "onnxruntime.OrtValue":
        return self._make(values.copy(), self._memory, 0)

    def _bind(self, cache: KvCache) -> "onnxruntime.IOBinding":
        binding = self._graph.session.io_binding()
        cache.bind(binding)
        binding.bind_ortvalue_input("input_ids", self._ids)
        binding.bind_ortvalue_input("attention_mask", self._mask)
        binding.bind_ortvalue_output("logits", self._logits)
        if self._graph.chooses_greedily:
            binding.bind_ortvalue_output(GREEDY_TOKEN, self._ids)
            binding.bind_ortvalue_output(GREEDY_LOGIT, self._logit)
        return binding


def make_run_options(graph: OpenGraph, graph_id: int | None) -> "onnxruntime.RunOptions | None":
    """Return run options that capture the run under an id; `None` as id captures nothing."""
    if not graph.has_cuda_graph:
        return None
    options = import_onnxruntime().RunOptions()
    options.add_run_config_entry(_GRAPH_ID, _NO_CAPTURE if graph_id is None else str(graph_id))
    return options
