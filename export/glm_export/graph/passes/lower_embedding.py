"""Replacement of the embedding placeholder by a lookup of float or quantized rows."""

import onnx_ir as ir

from glm_export.graph.passes.initializers import get_initializer, replace_node
from glm_export.model.operators import ORT_DOMAIN, PLACEHOLDER_DOMAIN
from glm_export.plan.plan import ExportPlan, TensorPlan


def lower_embedding(graph: ir.Graph, plan: ExportPlan) -> int:
    """Embedding(W, ids) -> Gather(W, ids), or GatherBlockQuantized(codes, ids, scales, zeros).

    This also binds every other float initializer (norms, rotation tables) to its bytes.
    """
    nodes = [n for n in graph if n.domain == PLACEHOLDER_DOMAIN and n.op_type == "Embedding"]
    for node in nodes:
        weight, ids = node.inputs
        assert weight is not None and weight.name is not None and ids is not None
        replace_node(node, [_look_up(graph, plan.tensors[weight.name], ids)])
    for name, value in list(graph.initializers.items()):
        if name in plan.tensors and plan.tensors[name].scheme is None and value.uses():
            (segment,) = plan.tensors[name].segments
            get_initializer(graph, segment, segment.shape)
    return len(nodes)


def _look_up(graph: ir.Graph, tensor: TensorPlan, ids: ir.Value) -> ir.Node:
    scheme = tensor.scheme
    operands = [get_initializer(graph, segment, segment.shape) for segment in tensor.segments]
    if scheme is None:
        return ir.node("Gather", [operands[0], ids], {"axis": 0}, name="embed_tokens")
    attributes: dict[str, int] = {
        "gather_axis": 0,
        "quantize_axis": 1,
        "bits": scheme.bits,
        "block_size": scheme.block_size,
    }
    return ir.node(
        "GatherBlockQuantized",
        [operands[0], ids, *operands[1:]],
        attributes,
        domain=ORT_DOMAIN,
        name="embed_tokens",
    )
