"""Graph passes, which turn the traced float graph into the exported one.

A pass is a small function that changes the graph in place and returns the number of places it
rewrote. A number that differs from the plan is an error, so a graph is never silently slower.
"""

import onnx_ir as ir

from glm_export.errors import VerificationError
from glm_export.graph.passes.add_greedy import add_greedy
from glm_export.graph.passes.avoid_cudnn import avoid_cudnn
from glm_export.graph.passes.fuse_skip_norm import fuse_skip_norm
from glm_export.graph.passes.lower_embedding import lower_embedding
from glm_export.graph.passes.lower_linear import lower_linear
from glm_export.graph.passes.quantize_cache import quantize_cache
from glm_export.plan.plan import ExportPlan

_LINEARS_OF_A_LAYER = 4


def run_passes(graph: ir.Graph, plan: ExportPlan, accuracy_level: int) -> None:
    """Run all passes in place, and drop the initializers that no node reads.

    The placeholders are replaced first, since the fusion searches for the resulting nodes.

    Args:
        graph: the traced decoder.
        plan: location of each tensor in the data file.
        accuracy_level: attribute of MatMulNBits; 0 computes in float32, 4 quantizes activations to
            int8.

    Raises:
        VerificationError: a pass found more or fewer places than the plan expects.
    """
    layers = sum(name.endswith(".input_layernorm.weight") for name in plan.tensors)
    _require("linear", lower_linear(graph, plan, accuracy_level), _LINEARS_OF_A_LAYER * layers + 1)
    _require("embedding", lower_embedding(graph, plan), 1)
    # Both norms of each layer follow a sum, except the input norm of the first layer.
    _require("residual sum with a norm", fuse_skip_norm(graph), 2 * layers - 1)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_input():
            del graph.initializers[name]
    graph.sort()


def _require(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise VerificationError(
            f"the traced graph has {found} places of the kind {what!r} but the model has "
            f"{expected}; please report this with the versions of torch and onnxscript."
        )


__all__ = ["add_greedy", "avoid_cudnn", "quantize_cache", "run_passes"]
