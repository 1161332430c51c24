"""Fusion of a residual sum and the norm after it into one kernel."""

import onnx_ir as ir

from glm_export.model.operators import ORT_DOMAIN


def fuse_skip_norm(graph: ir.Graph) -> int:
    """Rewrite s = a + b; y = norm(s) as y, s = SkipSimplifiedLayerNormalization(a, b).

    The sum stays available as the residual stream. A norm whose input is not a sum is not changed:
    the first norm, the post-norms, and the final norm after the selection of positions.

    Returns:
        Number of fused norms.
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
    mean.name = deviation.name = ""  # optional outputs that no node reads
    for new, old in ((normed, norm.outputs[0]), (total, add.outputs[0])):
        new.name, new.type = old.name, old.type
    graph.insert_before(norm, fused)
    ir.convenience.replace_all_uses_with(norm.outputs[0], normed)
    ir.convenience.replace_all_uses_with(add.outputs[0], total)
    graph.remove([norm, add], safe=True)
