"""Tracing of the PyTorch decoder to an ONNX graph, without weights in memory.

The decoder consists of fake tensors, which have a shape and a type but no data. `torch.onnx.export`
traces it. The initializers of the graph have names and shapes; `writer.py` writes their values.
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

# The standard operators in the graph need opset 18 at most; GroupQueryAttention and MatMulNBits are
# contrib operators. ONNX Runtime 1.20 and later load opset 21.
OPSET_VERSION = 21
NUM_LOGITS = "num_logits_to_keep"
_BATCH, _NEW, _PAST = 2, 3, 5  # sizes must differ from each other and from 1


def trace_decoder(config: DecoderConfig, dtype: torch.dtype, wide: torch.dtype) -> ir.Model:
    """Trace the decoder to a float graph, in which each Linear and Embedding is a placeholder.

    Args:
        config: shape of the decoder.
        dtype: float32 or float16, type of attention, KV cache, logits and most matrix products.
        wide: type of the residual stream, the norms, and the outputs of `o_proj` and `down_proj`.

    Returns:
        A graph whose inputs and outputs have the names that onnxruntime-genai, Optimum and
        transformers.js expect. Its initializers have the names of the decoder's parameters and no
        values. The optional input `num_logits_to_keep` has the default 1.
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
            optimize=False,  # its constant folding would read weights
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
    """Give inputs and outputs the dimension names that other tools expect."""
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
            if id(value) not in outer:  # names of traced symbols do not help a reader
                value.shape = None


def _make_optional(graph: ir.Graph, name: str) -> None:
    """Make an input optional with the default 1, by an initializer of the same name."""
    value = next(value for value in graph.inputs if value.name == name)
    value.const_value = ir.tensor([1], dtype=ir.DataType.INT64, name=name)
    graph.register_initializer(value)


def _sort_attributes(graph: ir.Graph) -> None:
    """Sort the attributes of all nodes, since onnx orders them differently on Windows."""
    for node in graph:
        attributes = sorted(node.attributes.items())
        node.attributes.clear()
        node.attributes.update(attributes)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set PyTorch's default type, since a fake tensor cannot change its type later."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide PyTorch's warnings about torchvision and deprecations, which users cannot act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
