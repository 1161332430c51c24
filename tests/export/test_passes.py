"""Graph passes on graphs built by hand: what they rewrite, what they leave, and why."""

import onnx_ir as ir
import pytest

from glm_export.errors import VerificationError
from glm_export.graph.passes import run_passes
from glm_export.graph.passes.fuse_skip_norm import fuse_skip_norm
from glm_export.plan.plan import ExportPlan


def build_graph(first: str, *, is_sum_used_again: bool) -> ir.Graph:
    """y = norm(first(a, b)); with `is_sum_used_again` the sum is an output too."""
    inputs = [ir.val(name, ir.DataType.FLOAT, ["n", 4]) for name in ("a", "b")]
    weight = ir.val("weight", ir.DataType.FLOAT, [4])
    combined = ir.node(first, inputs)
    combined.outputs[0].name = "sum"
    norm = ir.node("SimplifiedLayerNormalization", [combined.outputs[0], weight], {"epsilon": 1e-5})
    norm.outputs[0].name = "y"
    again = ir.node("Identity", [combined.outputs[0]])
    again.outputs[0].name = "again"
    nodes = [combined, norm, again] if is_sum_used_again else [combined, norm]
    outputs = [node.outputs[0] for node in nodes[1:]]
    return ir.Graph([*inputs, weight], outputs, nodes=nodes, opset_imports={"": 21})


@pytest.mark.parametrize("is_sum_used_again", [True, False])
def test_a_sum_and_its_norm_become_one(is_sum_used_again: bool) -> None:
    graph = build_graph("Add", is_sum_used_again=is_sum_used_again)
    graph.outputs[0] = ir.node("Identity", [graph.outputs[0]]).outputs[0]
    graph.append(graph.outputs[0].producer())
    assert fuse_skip_norm(graph) == 1
    fused = next(n for n in graph if n.op_type == "SkipSimplifiedLayerNormalization")
    assert [value.name for value in fused.inputs] == ["a", "b", "weight"]
    assert fused.outputs[0].name == "y"
    assert "Add" not in {node.op_type for node in graph}
    if is_sum_used_again:
        again = next(n for n in graph if n.op_type == "Identity" and n.outputs[0].name == "again")
        assert again.inputs[0] is fused.outputs[3]


def test_a_product_is_left() -> None:
    graph = build_graph("Mul", is_sum_used_again=False)
    assert fuse_skip_norm(graph) == 0
    assert [node.op_type for node in graph] == ["Mul", "SimplifiedLayerNormalization"]


def test_a_trace_of_another_shape_than_the_plan_is_refused() -> None:
    graph = build_graph("Add", is_sum_used_again=False)
    with pytest.raises(VerificationError, match="0 places of the kind 'linear'"):
        run_passes(graph, ExportPlan({}, "fp32", 0), accuracy_level=0)
