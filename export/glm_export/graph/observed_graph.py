"""An exported graph, changed for a closer look: with its layers' outputs, or computing in float.

It is edited in memory: the folder stays as it is, and its weights are not read.
"""

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from glm_export.errors import VerificationError


@dataclass(frozen=True)
class ObservedGraph:
    """A serialized model whose weights lie in its folder.

    Attributes:
        content: the model's bytes.
        state_names: outputs [B, S, C]: the embedding's, then each layer's; or none.
    """

    content: bytes
    state_names: tuple[str, ...]


def observe_states(folder: Path, num_layers: int) -> ObservedGraph:
    """Read a folder's graph and add what goes into and comes out of each layer.

    Raises:
        VerificationError: the file is no graph, or none whose layers can be told apart.
    """
    model = _load(folder)
    weights = [f"layers.{index}.input_layernorm.weight" for index in range(num_layers)]
    states = []
    for weight in (*weights, "norm.weight"):
        state = _find_normed(model.graph, weight)
        if state is None:
            raise VerificationError(
                f"the graph of {folder} has no norm with {weight}, which tells its layers apart; "
                "export it again, or leave the layers out."
            )
        states.append(state)
    model.graph.outputs.extend(states)
    names = tuple(str(state.name) for state in states)
    return ObservedGraph(ir.to_proto(model).SerializeToString(), names)


def keep_activations_float(folder: Path) -> ObservedGraph:
    """A folder's graph whose kernels do not round activations to int8.

    Raises:
        VerificationError: the file is no graph.
    """
    model = _load(folder)
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 0)
    return ObservedGraph(ir.to_proto(model).SerializeToString(), ())


def _load(folder: Path) -> ir.Model:
    try:
        return ir.load(folder / "model.onnx")
    except Exception as error:  # protobuf's class is no part of its interface
        raise VerificationError(
            f"the graph of {folder} cannot be read ({error}); export it again."
        ) from error


def _find_normed(graph: ir.Graph, weight: str) -> ir.Value | None:
    """The residual stream [B, S, C] that is normalised with a weight."""
    uses = graph.initializers[weight].uses() if weight in graph.initializers else ()
    for node, _ in uses:
        if node.op_type == "SkipSimplifiedLayerNormalization" and len(node.outputs) == 4:
            return node.outputs[3]  # the sum of its first two inputs
        if node.op_type == "SimplifiedLayerNormalization":
            return _skip_selection(node.inputs[0])
    return None


def _skip_selection(value: ir.Value | None) -> ir.Value | None:
    """All positions: the last norm sees only those whose logits are asked for."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "GatherND":
        return producer.inputs[0]
    return value
