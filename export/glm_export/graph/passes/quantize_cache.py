"""The int8 KV cache: attention reads and writes codes, a quarter of the bytes of float32."""

from collections.abc import Sequence

import onnx_ir as ir

from glm_export.calibration.cache_scales import CacheScales
from glm_quantize import FloatArray

_PER_CHANNEL = "PER_CHANNEL"
_NUM_INPUTS = 12  # inputs before the scales, some of them unused


def quantize_cache(graph: ir.Graph, scales: Sequence[CacheScales]) -> None:
    """Give each GroupQueryAttention its scales, and make the cache's inputs and outputs int8.

    The kernel stores rint(x / scale) clipped to -128 ... 127. It reads code * scale, for the new
    tokens too.

    Args:
        graph: graph with one attention node per layer, in order.
        scales: scales of each layer.
    """
    nodes = [node for node in graph if node.op_type == "GroupQueryAttention"]
    for index, (node, of_layer) in enumerate(zip(nodes, scales, strict=True)):
        operands = [*node.inputs, *[None] * (_NUM_INPUTS - len(node.inputs))]
        for part, values in (("key", of_layer.key), ("value", of_layer.value)):
            operands.append(_add_initializer(graph, f"layers.{index}.{part}_scale", values))
        attributes = {
            "k_quant_type": ir.AttrString("k_quant_type", _PER_CHANNEL),
            "v_quant_type": ir.AttrString("v_quant_type", _PER_CHANNEL),
            "kv_cache_bit_width": ir.AttrInt64("kv_cache_bit_width", 8),
        }
        node.resize_inputs(len(operands))
        for place, operand in enumerate(operands):
            node.replace_input_with(place, operand)
        node.attributes.update(attributes)
    for value in (*graph.inputs, *graph.outputs):
        assert value.name is not None
        if value.name.startswith(("past_key_values.", "present.")):
            value.type = ir.TensorType(ir.DataType.INT8)


def _add_initializer(graph: ir.Graph, name: str, values: FloatArray) -> ir.Value:
    tensor = ir.tensor(values, name=name)
    value = ir.Value(name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype))
    value.const_value = tensor
    graph.register_initializer(value)
    return value
