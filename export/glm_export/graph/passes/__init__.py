"""Graph passes: from the traced float graph to the one that ships.

Each is a small function `(graph, plan) -> PassResult`. Order matters: lowering first, since the
fusions look for what it leaves.
"""

from collections.abc import Callable

import onnx_ir as ir

from glm_export.graph.passes.add_greedy import add_greedy
from glm_export.graph.passes.fuse_skip_norm import fuse_skip_norm
from glm_export.graph.passes.lower_embedding import lower_embedding
from glm_export.graph.passes.lower_linear import lower_linear
from glm_export.graph.passes.quantize_cache import quantize_cache
from glm_export.graph.passes.result import PassResult
from glm_export.plan.plan import ExportPlan

Pass = Callable[[ir.Graph, ExportPlan], PassResult]


def build_passes(accuracy_level: int) -> tuple[Pass, ...]:
    """The passes of every export, in order.

    Args:
        accuracy_level: of MatMulNBits: 0 computes in float32, 4 quantizes activations to int8.
    """
    return (
        lambda graph, plan: lower_linear(graph, plan, accuracy_level),
        lower_embedding,
        fuse_skip_norm,
    )


def run_passes(graph: ir.Graph, plan: ExportPlan, accuracy_level: int) -> list[PassResult]:
    """Run all passes in place and drop the initializers that no node reads any more."""
    results = [run(graph, plan) for run in build_passes(accuracy_level)]
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_input():
            del graph.initializers[name]
    graph.sort()
    return results


__all__ = ["PassResult", "add_greedy", "build_passes", "quantize_cache", "run_passes"]
