"""Initializers whose bytes lie in the data file that `writer.py` fills."""

import math

import onnx_ir as ir

from glm_export.plan.plan import Segment

DATA_FILE = "model.onnx.data"
DTYPES = {
    "fp32": ir.DataType.FLOAT,
    "fp16": ir.DataType.FLOAT16,
    "uint8": ir.DataType.UINT8,
    "int32": ir.DataType.INT32,
}


def get_initializer(
    graph: ir.Graph, segment: Segment, shape: tuple[int, ...], suffix: str = ""
) -> ir.Value:
    """The initializer over a segment's bytes, made on first use.

    Args:
        graph: where it is registered.
        segment: the bytes.
        shape: may group the same bytes otherwise than the segment does.
        suffix: tells two views of one segment apart (a tied head and its embedding).
    """
    name = segment.name + suffix
    if name in graph.initializers and graph.initializers[name].const_value is not None:
        return graph.initializers[name]
    assert math.prod(shape) == math.prod(segment.shape)
    dtype = DTYPES[segment.dtype]
    tensor = ir.ExternalTensor(
        location=DATA_FILE,
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
    """Offset in the data file -> names of the initializers there; a tied head has two views."""
    found: dict[int, tuple[str, ...]] = {}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.offset is not None:
            found[tensor.offset] = (*found.get(tensor.offset, ()), name)
    return found


def replace_node(old: ir.Node, new: list[ir.Node]) -> None:
    """Put nodes in the place of one; the last one's first output takes over name and uses."""
    graph = old.graph
    assert graph is not None
    before, after = old.outputs[0], new[-1].outputs[0]
    after.name, after.shape, after.type = before.name, before.shape, before.type
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
    graph.remove(old, safe=True)
