"""Runs the graph: tokens in, logits of the last positions out, with the KV cache in place.

This file knows the names of the graph's tensors and nothing about text or sampling. Python takes
about 0.02 ms of a step. Letters: S new tokens, T all tokens, K positions whose logits are returned,
V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np

from glm_runtime.arrays import CacheArray, FloatArray
from glm_runtime.errors import (
    FolderError,
    GenerationError,
    GlmRuntimeError,
    PromptError,
    first_line,
)
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.fixed_step import FixedStep, make_run_options
from glm_runtime.graph.inference import OpenGraph, import_onnxruntime
from glm_runtime.graph.kv_cache import KvCache

# Chunked prefill bounds the memory of a long prompt: 128 takes 120 MB less than 512 at 1.5 B
# parameters and is as fast.
PREFILL_CHUNK = 128
DEVICE_CHUNK = 2048  # chosen for GPUs without a measurement

_CACHE_KINDS = MappingProxyType(
    {"float32": "tensor(float)", "float16": "tensor(float16)", "int8": "tensor(int8)"}
)


class Decoder:
    """Runs one sequence with a KV cache of its own; several decoders can share one graph."""

    def __init__(self, graph: OpenGraph, model: ModelEntry) -> None:
        self._graph = graph
        self._model = model
        self._cache = KvCache(model, graph.memory)
        self._step: FixedStep | None = None
        self._run_options = make_run_options(graph, None)
        self._ort_value = import_onnxruntime().OrtValue
        self._binding = graph.session.io_binding()
        self._bound: object = None
        self._ones = np.ones((1, 0), np.int64)
        self._logits = np.zeros((1, 1, model.vocab_size), graph.logits_dtype)
        self._num_logits = 0

    @property
    def length(self) -> int:
        """Number of tokens in the KV cache."""
        return self._cache.length

    def reserve(self, length: int) -> None:
        """Make room for `length` tokens, at most for the context length."""
        self._cache.reserve(min(length, self._model.context_length))

    def truncate(self, length: int) -> None:
        """Forget every token from position `length` on, without copying."""
        self._cache.length = min(length, self._cache.length)

    def copy_values(self) -> dict[str, CacheArray]:
        """Return the keys and values of the tokens so far; see `KvCache.copy_values`."""
        return self._cache.copy_values()

    def load_values(self, values: dict[str, CacheArray], length: int) -> None:
        """Replace the cache by `length` tokens of another decoder of this model."""
        self._cache.load_values(values, length)

    @property
    def chooses_greedily(self) -> bool:
        """Whether `choose_next` can be called."""
        return self._graph.has_fixed_steps and self._graph.chooses_greedily

    def choose_next(self, token: int) -> tuple[int, float]:
        """Read one token and choose the most likely next one on the device.

        Returns:
            the id of the next token and its logit, which is not finite if the logits are not.

        Raises:
            PromptError: the token does not fit into the context.
            GenerationError: ONNX Runtime failed, for example because memory ran out.
        """
        with explain_failure(f"at token {self.length + 1}"):
            return self._run_step(token).fetch_choice()

    def prefill(self, tokens: Sequence[int], chunk: int | None = None) -> FloatArray:
        """Read a prompt in chunks.

        Args:
            tokens: the ids, at least one.
            chunk: number of tokens in one run; `None` takes what suits the device.

        Returns:
            logits [V] after the last token: a view, valid until the next call.

        Raises:
            PromptError: the tokens do not fit into the context.
            GenerationError: ONNX Runtime failed, for example because memory ran out.
        """
        chunk = chunk or (PREFILL_CHUNK if self._graph.memory == "cpu" else DEVICE_CHUNK)
        for start in range(0, len(tokens), chunk):
            logits = self.append(tokens[start : start + chunk])
        last: FloatArray = logits[-1]
        return last

    def append(self, tokens: Sequence[int], num_logits: int = 1) -> FloatArray:
        """Run the graph on new tokens.

        Args:
            tokens: S ids, at least one.
            num_logits: number of last positions whose logits are returned.

        Returns:
            logits [K, V], K = min(S, num_logits): a view, valid until the next call.

        Raises:
            PromptError: the tokens do not fit into the context.
            GenerationError: ONNX Runtime failed, for example because memory ran out.
        """
        with explain_failure(f"at token {self.length + len(tokens)}"):
            if self._graph.has_fixed_steps and len(tokens) == 1:
                step_logits: FloatArray = self._run_step(tokens[0]).fetch_logits()[0]
                return step_logits
            return self._run(tokens, min(num_logits, len(tokens)))

    def _run(self, tokens: Sequence[int], num_logits: int) -> FloatArray:
        total = self._reserve(len(tokens))
        self._bind_logits(num_logits)
        # Bound again at every step (2 us each), since binding copies the values to a GPU.
        self._binding.bind_cpu_input("input_ids", np.array([tokens], np.int64))
        self._binding.bind_cpu_input("attention_mask", self._ones[:, :total])
        self._graph.run(self._binding, self._run_options)
        self._cache.length = total
        rows: FloatArray = self._logits[0] if self._num_logits == 1 else self._fetch_logits()[0]
        return rows

    def _run_step(self, token: int) -> FixedStep:
        total = self._reserve(1)
        if self._step is None:
            self._step = FixedStep(self._graph, self._model, self._cache)
        self._step.run(token, self._cache.length)
        self._cache.length = total
        return self._step

    def _reserve(self, count: int) -> int:
        """Make room for `count` more tokens; return the new number of tokens."""
        total = self._cache.length + count
        check_length(total, self._model)
        self._cache.reserve(total)
        if self._bound is not self._cache.buffers:
            self._bind_cache()
            self._step = None
        return total

    def _bind_cache(self) -> None:
        self._cache.bind(self._binding)
        self._ones = np.ones((1, self._cache.capacity), np.int64)
        self._bound = self._cache.buffers

    def _bind_logits(self, num_logits: int) -> None:
        """Bind our buffer for one row of logits; several rows get a new buffer at every step.

        The graph declares one row, and ONNX Runtime refuses a bound buffer of another shape.
        """
        make_value = self._ort_value.ortvalue_from_numpy
        if num_logits != 1:
            self._binding.bind_output("logits", "cpu")
        elif self._num_logits != 1:
            self._binding.bind_ortvalue_output("logits", make_value(self._logits))
        if self._num_logits != num_logits:
            count = make_value(np.array([num_logits], np.int64))
            self._binding.bind_ortvalue_input("num_logits_to_keep", count)
        self._num_logits = num_logits

    def _fetch_logits(self) -> FloatArray:
        """Return the logits, which come after the cache in the order of first binding."""
        outputs = self._binding.get_outputs()
        # `numpy()` is a view that does not keep its buffer alive.
        logits: FloatArray = outputs[len(self._cache.buffers)].numpy().copy()
        return logits


@contextmanager
def explain_failure(place: str, advice: str = "") -> Iterator[None]:
    """Turn an error of ONNX Runtime into one sentence.

    Args:
        place: where it happened, such as "at token 12".
        advice: what to try first, such as "try fewer rows, or ".

    Raises:
        GenerationError: ONNX Runtime failed.
    """
    try:
        yield
    except GlmRuntimeError:
        raise
    except Exception as error:  # onnxruntime's classes have no other common root
        raise GenerationError(
            f"onnxruntime failed {place} ({first_line(error)}); {advice}"
            "check the folder and the free memory with `glm-run doctor`."
        ) from error


def check_length(num_tokens: int, model: ModelEntry) -> None:
    """Refuse more tokens than the context holds.

    Raises:
        PromptError: there are too many tokens.
    """
    if num_tokens > model.context_length:
        can_scale = model.rope is not None and model.rope.yarn is None
        scaling = (
            ", or load the model with YaRN (--rope-scaling yarn --factor 4 of glm-run, "
            "rope_scaling of glm_runtime.load)"
        )
        raise PromptError(
            f"the sequence has {num_tokens} tokens but the model's context length is "
            f"{model.context_length}; shorten the prompt, or start a new conversation"
            f"{scaling if can_scale else ''}."
        )


def check_graph(graph: OpenGraph, model: ModelEntry) -> None:
    """Compare the graph's inputs and outputs with the manifest.

    Raises:
        FolderError: a tensor is missing, or has another shape or type.
    """
    session = graph.session
    found = {node.name: (node.type, node.shape) for node in session.get_inputs()}
    optional = session.get_overridable_initializers()
    found |= {node.name: (node.type, node.shape) for node in optional}
    found |= {node.name: (node.type, node.shape) for node in session.get_outputs()}
    if model.num_layers > len(found):  # else a wrong number of layers could fill the memory
        raise FolderError(
            f"model.onnx has {len(found)} inputs and outputs where the manifest requires "
            f"{model.num_layers} layers; export the checkpoint again."
        )
    for name, (kind, shape) in _expected_tensors(model).items():
        if name not in found:
            raise FolderError(
                f"model.onnx has no tensor {name!r}, which the manifest requires; "
                "export the checkpoint again."
            )
        found_kind, found_shape = found[name]
        if found_kind != kind or not _fits(found_shape, shape):
            raise FolderError(
                f"model.onnx: {name} is {found_kind} {found_shape} where the manifest requires "
                f"{kind} {list(shape)}; export the checkpoint again."
            )


def _expected_tensors(model: ModelEntry) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    cache_kind = _CACHE_KINDS[model.cache_dtype]
    logits_kind = "tensor(float)" if model.cache_dtype == "int8" else cache_kind
    expected: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "input_ids": ("tensor(int64)", (None, None)),
        "attention_mask": ("tensor(int64)", (None, None)),
        "num_logits_to_keep": ("tensor(int64)", (1,)),
        "logits": (logits_kind, (None, None, model.vocab_size)),
    }
    cache = (None, model.num_kv_heads, None, model.head_dim)
    for layer in range(model.num_layers):
        for part in ("key", "value"):
            expected[f"past_key_values.{layer}.{part}"] = (cache_kind, cache)
            expected[f"present.{layer}.{part}"] = (cache_kind, cache)
    return expected


def _fits(found: list[int | str | None], expected: tuple[int | None, ...]) -> bool:
    """Return whether every fixed size is as expected; a symbolic dimension fits any size."""
    if len(found) != len(expected):
        return False
    pairs = zip(found, expected, strict=True)
    return all(want is None or not isinstance(have, int) or have == want for have, want in pairs)


def count_shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))
