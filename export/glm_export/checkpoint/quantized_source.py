"""What a checkpoint stores in another way than as floats, and the note that a user reads about it.

Packed integers are exported unchanged. 8-bit numbers with scales become floats as they are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.prequantized import (
    PrequantizedFormat,
    QuantizedMatrix,
    ScaledFormat,
    ScaledWeight,
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
        checkpoint: the checkpoint, with 8-bit numbers computed as floats.
        stored_format: format of the matrices, for example "gptq"; "" if there are none.
        matrices: parameters that the checkpoint holds as packed integers.
        others: names of tensors that belong to 8-bit numbers.
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
    computed = {name: weight.compute() for name, weight in scaled.items()}
    return QuantizedSource(
        checkpoint=replace(checkpoint, computed={**checkpoint.computed, **computed}),
        stored_format=stored.method if matrices else "",
        matrices=matrices,
        others=tuple(name for one in scaled.values() for name in (one.scale, *one.others)),
        note=_describe_scaled(stored.method, scaled, has_matrices=bool(matrices)),
    )


def _are_floats(checkpoint: Checkpoint, parameters: Mapping[str, ParameterSource]) -> bool:
    """Return True if every parameter is stored as floats."""
    found = (checkpoint.tensors.get(name) for one in parameters.values() for name, _ in one.tensors)
    return all(tensor is not None and tensor.is_float for tensor in found)


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
) -> dict[str, ScaledWeight]:
    if not isinstance(stored, ScaledFormat):
        return {}
    found: dict[str, ScaledWeight] = {}
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


def _describe_scaled(method: str, scaled: Mapping[str, ScaledWeight], *, has_matrices: bool) -> str:
    if not scaled:
        return ""
    after = "stay floats" if has_matrices else "were then treated as floats"
    return (
        f"{len(scaled)} tensors of 8-bit numbers ({method}) were dequantized and {after}; "
        "activations are not rounded to 8 bits."
    )
