"""The most likely token as an output, so that greedy decoding on a GPU copies one number a step."""

import onnx_ir as ir

from glm_runtime.graph.fixed_step import GREEDY_LOGIT
from glm_runtime.graph.inference import GREEDY_TOKEN


def add_greedy(graph: ir.Graph, vocab_size: int) -> None:
    """Add the outputs greedy_token [B, k] int64 and greedy_logit [B, k] float32.

    k is declared as 1, as for the logits. greedy_logit is the largest logit plus zero times the sum
    of all logits, so it is not finite if any logit is not, and then the token is invalid.

    Args:
        graph: graph with an output `logits` [B, k, V].
        vocab_size: vocabulary size of the tokenizer; larger ids are padding and never chosen.
    """
    logits = next(value for value in graph.outputs if value.name == "logits")
    numbers = [
        ir.node("Constant", [], {"value_ints": [number]}) for number in (0, vocab_size, -1, 1)
    ]
    zero, size, last, one = (node.outputs[0] for node in numbers)
    real = ir.node("Slice", [logits, zero, size, last])
    wide = ir.node("Cast", real.outputs, {"to": ir.DataType.FLOAT.value})
    best = ir.node("TopK", [wide.outputs[0], one], {"axis": -1}, num_outputs=2)
    nothing = ir.node("Constant", [], {"value_float": 0.0})
    zeros = ir.node("Mul", [wide.outputs[0], nothing.outputs[0]])
    check = ir.node("ReduceSum", [zeros.outputs[0], last], {"keepdims": 0})
    largest = ir.node("Squeeze", [best.outputs[0], last])
    logit = ir.node("Add", [largest.outputs[0], check.outputs[0]])
    token = ir.node("Squeeze", [best.outputs[1], last])
    graph.extend([*numbers, real, wide, best, nothing, zeros, check, largest, logit, token])
    assert logits.shape is not None
    for node, name, dtype in (
        (token, GREEDY_TOKEN, ir.DataType.INT64),
        (logit, GREEDY_LOGIT, ir.DataType.FLOAT),
    ):
        value = node.outputs[0]
        value.name, value.type = name, ir.TensorType(dtype)
        value.shape = ir.Shape(logits.shape.dims[:2])
        graph.outputs.append(value)
