"""A residual sum and the norm after it become one kernel."""

import onnx_ir as ir

from glm_export.model.operators import ORT_DOMAIN


def fuse_skip_norm(graph: ir.Graph) -> int:
    """Rewrite s = a + b; y = norm(s) as y, s = SkipSimplifiedLayerNormalization(a, b).

    The sum goes on as the residual stream. A norm of something else than a sum (the first
    layer's, the sandwich norms, the final one after the selection) stays as it is.

    Returns:
        Number of norms that were fused.
    """
    rewritten = 0
    for node in [n for n in graph if n.op_type == "SimplifiedLayerNormalization"]:
        hidden = node.inputs[0]
        assert hidden is not None
        add = hidden.producer()
        if add is not None and add.op_type == "Add":
            _fuse(graph, add, node)
            rewritten += 1
    return rewritten


def _fuse(graph: ir.Graph, add: ir.Node, norm: ir.Node) -> None:
    epsilon = norm.attributes["epsilon"].as_float()
    fused = ir.node(
        "SkipSimplifiedLayerNormalization",
        [*add.inputs, norm.inputs[1]],
        {"epsilon": epsilon},
        domain=ORT_DOMAIN,
        num_outputs=4,
    )
    normed, mean, deviation, total = fused.outputs
    mean.name = deviation.name = ""  # optional outputs that nobody reads
    for new, old in ((normed, norm.outputs[0]), (total, add.outputs[0])):
        new.name, new.type = old.name, old.type
    graph.insert_before(norm, fused)
    ir.convenience.replace_all_uses_with(norm.outputs[0], normed)
    ir.convenience.replace_all_uses_with(add.outputs[0], total)
    graph.remove([norm, add], safe=True)
