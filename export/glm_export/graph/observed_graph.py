"""Variants of an exported graph for measurements: with outputs of all layers, or in float32.

The graph is edited in memory. The folder does not change, and its weights are not read.
"""

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from glm_export.errors import VerificationError
from glm_runtime.folder.manifest import MODEL_NAME


@dataclass(frozen=True)
class ObservedGraph:
    """A serialized graph whose weights are in the exported folder.

    Attributes:
        content: bytes of the graph.
        state_names: names of the outputs [B, S, C] of the embedding and each layer; may be empty.
    """

    content: bytes
    state_names: tuple[str, ...]


def observe_states(folder: Path, num_layers: int) -> ObservedGraph:
    """Read a folder's graph, and make the embedding's and each layer's output graph outputs.

    Raises:
        VerificationError: the file is not a graph, or its layers cannot be identified.
    """
    model = _load(folder)
    weights = [f"layers.{index}.input_layernorm.weight" for index in range(num_layers)]
    states = []
    for weight in (*weights, "norm.weight"):
        state = _find_normed(model.graph, weight)
        if state is None:
            raise VerificationError(
                f"the graph of {folder} has no norm with {weight}, which marks its layers; "
                "export it again, or leave the layers out."
            )
        states.append(state)
    model.graph.outputs.extend(states)
    names = tuple(str(state.name) for state in states)
    return ObservedGraph(ir.to_proto(model).SerializeToString(), names)


def keep_activations_float(folder: Path) -> ObservedGraph:
    """Read a folder's graph, and let its kernels compute without rounding activations to int8.

    Raises:
        VerificationError: the file is not a graph.
    """
    model = _load(folder)
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 0)
    return ObservedGraph(ir.to_proto(model).SerializeToString(), ())


def _load(folder: Path) -> ir.Model:
    try:
        return ir.load(folder / MODEL_NAME)
    except Exception as error:  # protobuf's error class is not public
        raise VerificationError(
            f"the graph of {folder} cannot be read ({error}); export it again."
        ) from error


def _find_normed(graph: ir.Graph, weight: str) -> ir.Value | None:
    """Find the residual stream [B, S, C] that the norm with this weight reads."""
    uses = graph.initializers[weight].uses() if weight in graph.initializers else ()
    for node, _ in uses:
        if node.op_type == "SkipSimplifiedLayerNormalization" and len(node.outputs) == 4:
            return node.outputs[3]  # the sum of its first two inputs
        if node.op_type == "SimplifiedLayerNormalization":
            return _skip_selection(node.inputs[0])
    return None


def _skip_selection(value: ir.Value | None) -> ir.Value | None:
    """Return the value before the selection of positions, which precedes the last norm."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "GatherND":
        return producer.inputs[0]
    return value
