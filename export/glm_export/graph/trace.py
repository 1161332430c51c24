"""PyTorch decoder -> ONNX graph, without any weights in memory.

The decoder is built of fake tensors (a shape and a type, no data) and traced by
`torch.onnx.export`. The graph's initializers are names and shapes; `writer.py` fills them.
Read `decoder.py` before, `passes/` after.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim

from glm_export.model.architectures import DecoderConfig
from glm_export.model.decoder import Decoder

# GroupQueryAttention and MatMulNBits are contrib operators; of the standard ones the newest used
# is from opset 18. 21 is what ONNX Runtime 1.20 and later load.
OPSET_VERSION = 21
NUM_LOGITS = "num_logits_to_keep"
_BATCH, _NEW, _PAST = 2, 3, 5  # any sizes that differ from each other and from 1


def trace_decoder(config: DecoderConfig, dtype: torch.dtype, wide: torch.dtype) -> ir.Model:
    """The decoder's graph, in float, every Linear and Embedding still a placeholder.

    Args:
        config: the decoder's shape.
        dtype: float32 or float16: attention, KV cache, logits and most matrix products.
        wide: of the residual stream, the norms, and what `o_proj` and `down_proj` compute.

    Returns:
        A graph with the inputs and outputs named as onnxruntime-genai, Optimum and transformers.js
        expect, whose initializers (named as the decoder's parameters) have no values, and an
        optional input `num_logits_to_keep` that is 1 unless fed.
    """
    with _quiet_exporter(), FakeTensorMode(), _default_dtype(dtype):
        decoder = Decoder(config, wide).eval()
        program = torch.onnx.export(
            decoder,
            _example_inputs(config, dtype),
            input_names=["input_ids", "attention_mask", NUM_LOGITS, *_cache_names(config, "past")],
            output_names=["logits", *_cache_names(config, "present")],
            dynamic_shapes=_dynamic_shapes(config),
            opset_version=OPSET_VERSION,
            dynamo=True,
            optimize=False,  # its constant folder reads weights, and these have none
            verbose=False,
        )
    assert program is not None
    model = program.model
    for value in model.graph.initializers.values():
        value.const_value = None
    _name_dimensions(model.graph, config)
    _make_optional(model.graph, NUM_LOGITS)
    _sort_attributes(model.graph)
    return model


def _example_inputs(
    config: DecoderConfig, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    cache = (_BATCH, config.num_kv_heads, _PAST, config.head_dim)
    return (
        torch.zeros(_BATCH, _NEW, dtype=torch.int64),
        torch.ones(_BATCH, _PAST + _NEW, dtype=torch.int64),
        torch.ones(1, dtype=torch.int64),
        [torch.zeros(cache, dtype=dtype) for _ in range(2 * config.num_layers)],
    )


def _dynamic_shapes(config: DecoderConfig) -> tuple[object, ...]:
    rows = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    cache = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC}
    return (rows, dict(rows), {}, [dict(cache) for _ in range(2 * config.num_layers)])


def _cache_names(config: DecoderConfig, side: str) -> list[str]:
    prefix = "past_key_values" if side == "past" else side
    return [f"{prefix}.{i}.{kind}" for i in range(config.num_layers) for kind in ("key", "value")]


def _name_dimensions(graph: ir.Graph, config: DecoderConfig) -> None:
    """Give inputs and outputs the dimension names that other tools look for."""
    shapes: dict[str, list[int | str]] = {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", "total_sequence_length"],
        NUM_LOGITS: [1],
        "logits": ["batch_size", 1, config.vocab_size],
    }
    for side, length in (("past", "past_sequence_length"), ("present", "total_sequence_length")):
        for name in _cache_names(config, side):
            shapes[name] = ["batch_size", config.num_kv_heads, length, config.head_dim]
    for value in (*graph.inputs, *graph.outputs):
        assert value.name is not None
        value.shape = ir.Shape(shapes[value.name])
    outer = {id(value) for value in (*graph.inputs, *graph.outputs)}
    for node in graph:
        for value in node.outputs:
            if id(value) not in outer:  # traced symbols say nothing to a reader
                value.shape = None


def _make_optional(graph: ir.Graph, name: str) -> None:
    """Give an input the default 1: ONNX calls an input that is also an initializer optional."""
    value = next(value for value in graph.inputs if value.name == name)
    value.const_value = ir.tensor([1], dtype=ir.DataType.INT64, name=name)
    graph.register_initializer(value)


def _sort_attributes(graph: ir.Graph) -> None:
    """One order everywhere: the exporter takes onnx's, which is another one on Windows."""
    for node in graph:
        attributes = sorted(node.attributes.items())
        node.attributes.clear()
        node.attributes.update(attributes)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Fake tensors cannot change their type afterwards, so they are made with the right one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Torch warns of torchvision and of its own deprecations: nothing users can act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
