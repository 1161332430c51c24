"""Sums that CUDA computes without cuDNN.

ONNX Runtime's CUDA provider has a kernel of its own for float sums over the last axis. It gives all
other reductions to cuDNN, which is optional since onnxruntime 1.28.
Source: ONNX Runtime's core/providers/cuda/reduction/reduction_functions.cc.
"""

import onnx_ir as ir

from glm_export.graph.passes.initializers import replace_node


def avoid_cudnn(graph: ir.Graph) -> int:
    """Rewrite the reductions that need cuDNN.

    ReduceSum(integers) becomes Cast(ReduceSum(Cast(integers))), with float32 sums, which are exact
    up to 2^24 tokens. ReduceL2(x) becomes Sqrt(ReduceSum(x * x)).

    Only folders for CUDA have this form: other providers may compute float32 in fewer bits, where
    the number of tokens would be rounded.

    Returns:
        Number of rewritten nodes.
    """
    integers = {value.name for value in graph.inputs if value.dtype == ir.DataType.INT64}
    rewritten = 0
    for node in list(graph):
        operand = node.inputs[0] if node.inputs else None
        if node.op_type == "ReduceL2":
            replace_node(node, _take_length(node))
        elif node.op_type == "ReduceSum" and operand is not None and operand.name in integers:
            replace_node(node, _sum_integers(node))
        else:
            continue
        rewritten += 1
    return rewritten


def _sum_integers(node: ir.Node) -> list[ir.Node]:
    wide = ir.node("Cast", [node.inputs[0]], {"to": ir.DataType.FLOAT.value})
    total = ir.node("ReduceSum", [wide.outputs[0], node.inputs[1]], _read_keepdims(node))
    return [wide, total, ir.node("Cast", total.outputs, {"to": ir.DataType.INT64.value})]


def _take_length(node: ir.Node) -> list[ir.Node]:
    square = ir.node("Mul", [node.inputs[0], node.inputs[0]])
    total = ir.node("ReduceSum", [square.outputs[0], node.inputs[1]], _read_keepdims(node))
    return [square, total, ir.node("Sqrt", total.outputs)]


def _read_keepdims(node: ir.Node) -> dict[str, int]:
    return {"keepdims": node.attributes["keepdims"].as_int()}
