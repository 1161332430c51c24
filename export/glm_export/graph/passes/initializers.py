"""Initializers whose values are in the data file, which `writer.py` writes."""

import math

import onnx_ir as ir

from glm_export.plan.plan import Segment
from glm_runtime.folder.manifest import DATA_NAME

DTYPES = {
    "fp32": ir.DataType.FLOAT,
    "fp16": ir.DataType.FLOAT16,
    "uint8": ir.DataType.UINT8,
    "int32": ir.DataType.INT32,
}


def get_initializer(
    graph: ir.Graph, segment: Segment, shape: tuple[int, ...], suffix: str = ""
) -> ir.Value:
    """Return the initializer for a segment, and create it on first use.

    Args:
        graph: graph of the initializer.
        segment: bytes in the data file.
        shape: shape of the initializer, which may differ from that of the segment.
        suffix: suffix of the name, for a second view of a segment (tied embeddings).
    """
    name = segment.name + suffix
    if name in graph.initializers and graph.initializers[name].const_value is not None:
        return graph.initializers[name]
    assert math.prod(shape) == math.prod(segment.shape)
    dtype = DTYPES[segment.dtype]
    tensor = ir.ExternalTensor(
        location=DATA_NAME,
        offset=segment.offset_bytes,
        length=segment.size_bytes,
        dtype=dtype,
        shape=ir.Shape(shape),
        name=name,
    )
    value = graph.initializers.get(name)
    if value is None:
        value = ir.Value(name=name)
    value.shape, value.type, value.const_value = ir.Shape(shape), ir.TensorType(dtype), tensor
    graph.initializers[name] = value
    return value


def list_stored(graph: ir.Graph) -> dict[int, tuple[str, ...]]:
    """Return the initializers' names by offset in the data file; tied embeddings have two names."""
    found: dict[int, tuple[str, ...]] = {}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.offset is not None:
            found[tensor.offset] = (*found.get(tensor.offset, ()), name)
    return found


def replace_node(old: ir.Node, new: list[ir.Node]) -> None:
    """Replace a node; the first output of the last new node takes over its name and uses."""
    graph = old.graph
    assert graph is not None
    before, after = old.outputs[0], new[-1].outputs[0]
    after.name, after.shape, after.type = before.name, before.shape, before.type
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
    graph.remove(old, safe=True)
