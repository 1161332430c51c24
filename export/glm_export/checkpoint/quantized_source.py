"""What a checkpoint stores in another way than as floats, and the note that a user reads about it.

Packed integers are exported unchanged. Numbers that no kernel knows become floats as they are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.prequantized import (
    DequantizedWeight,
    PrequantizedFormat,
    QuantizedMatrix,
    ScaledFormat,
    find_format,
    find_matrices,
)
from glm_export.checkpoint.quantization_settings import KEY
from glm_export.errors import CheckpointError
from glm_export.model.architectures import ParameterSource


@dataclass(frozen=True)
class QuantizedSource:
    """A checkpoint whose quantized tensors were found.

    Attributes:
        checkpoint: the checkpoint, with numbers that have scales computed as floats.
        stored_format: format of the matrices, for example "gptq"; "" if there are none.
        matrices: parameters that the checkpoint holds as packed integers.
        others: names of tensors that belong to such numbers.
        note: a sentence for the user; "" if there is nothing to say.
    """

    checkpoint: Checkpoint
    stored_format: str = ""
    matrices: Mapping[str, QuantizedMatrix] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    note: str = ""


def find_quantized(
    checkpoint: Checkpoint, parameters: Mapping[str, ParameterSource]
) -> QuantizedSource:
    """Find the quantized tensors that config.json's quantization_config describes.

    Raises:
        CheckpointError: nothing is quantized, or a tensor is missing or contradicts config.json.
        UnsupportedModelError: the format, or a setting of it, is not supported.
    """
    if checkpoint.config.get(KEY) is None:
        return QuantizedSource(checkpoint)
    if _are_floats(checkpoint, parameters):
        return QuantizedSource(checkpoint, note=_describe_leftover(checkpoint))
    stored = find_format(checkpoint.config)
    assert stored is not None
    scaled = _find_scaled(checkpoint, stored, parameters)
    matrices: dict[str, QuantizedMatrix] = {}
    if isinstance(stored, PrequantizedFormat):
        matrices = find_matrices(checkpoint, stored, parameters)
    if not matrices and not scaled:
        raise CheckpointError(
            f"config.json says quant_method={stored.method!r} but no linear layer is stored "
            "that way; check that config.json belongs to these weights."
        )
    return QuantizedSource(
        checkpoint=_compute(checkpoint, scaled, parameters),
        stored_format=stored.method if matrices else "",
        matrices=matrices,
        others=tuple(name for one in scaled.values() for name in one.others),
        note=_describe_scaled(stored.method, scaled, has_matrices=bool(matrices)),
    )


def _are_floats(checkpoint: Checkpoint, parameters: Mapping[str, ParameterSource]) -> bool:
    """Return True if every parameter is stored as floats in its own shape."""
    expected = [tensor for source in parameters.values() for tensor in source.tensors]
    found = [(checkpoint.tensors.get(name), shape) for name, shape in expected]
    return all(one is not None and one.is_float and one.shape == shape for one, shape in found)


def _describe_leftover(checkpoint: Checkpoint) -> str:
    settings = checkpoint.config[KEY]
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    return (
        f"the settings of a quantization ({method or 'without quant_method'}) were ignored, since "
        "every weight is stored as floats."
    )


def _find_scaled(
    checkpoint: Checkpoint,
    stored: PrequantizedFormat | ScaledFormat,
    parameters: Mapping[str, ParameterSource],
) -> dict[str, DequantizedWeight]:
    if not isinstance(stored, ScaledFormat):
        return {}
    found: dict[str, DequantizedWeight] = {}
    for source in parameters.values():
        for name, shape in source.tensors:
            if len(shape) != 2:
                continue
            weight = stored.open_scaled(
                checkpoint, name.removesuffix(".weight"), (shape[0], shape[1])
            )
            if weight is not None:
                found[name] = weight
    return found


def _compute(
    checkpoint: Checkpoint,
    scaled: Mapping[str, DequantizedWeight],
    parameters: Mapping[str, ParameterSource],
) -> Checkpoint:
    """Return the checkpoint with weights as floats, whose entries have the shapes of those."""
    shapes = {name: shape for one in parameters.values() for name, shape in one.tensors}
    tensors = {name: replace(checkpoint.tensors[name], shape=shapes[name]) for name in scaled}
    computed = {name: weight.tensor for name, weight in scaled.items()}
    return replace(
        checkpoint,
        tensors={**checkpoint.tensors, **tensors},
        computed={**checkpoint.computed, **computed},
    )


def _describe_scaled(
    method: str, scaled: Mapping[str, DequantizedWeight], *, has_matrices: bool
) -> str:
    if not scaled:
        return ""
    after = "stay floats unless --set names them" if has_matrices else "are quantized as requested"
    return f"{len(scaled)} weights stored by {method} were read as floats; they {after}."
