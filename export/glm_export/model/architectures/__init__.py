"""The registry of architectures: `model_type` -> how to read its config and name its tensors.

One file each, one line here. Read `description.py` first, then `glm.py`.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.errors import CheckpointError, UnsupportedModelError
from glm_export.model.architectures import chatglm, glm, glm4
from glm_export.model.architectures.description import (
    Architecture,
    DecoderConfig,
    ParameterSource,
    Yarn,
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "chatglm": chatglm.ARCHITECTURE,
        "glm": glm.ARCHITECTURE,
        "glm4": glm4.ARCHITECTURE,
    }
)

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "DecoderConfig",
    "ParameterSource",
    "Yarn",
    "check_tensors",
    "find_architecture",
]


def find_architecture(checkpoint: Checkpoint) -> Architecture:
    """The architecture that config.json names.

    Raises:
        UnsupportedModelError: no `model_type`, or one that is not registered.
    """
    model_type = checkpoint.config.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"config.json says model_type={model_type!r}; "
            f"supported are {', '.join(sorted(ARCHITECTURES))}: take a checkpoint of that type."
        )
    return ARCHITECTURES[model_type]


def check_tensors(
    checkpoint: Checkpoint,
    parameters: Mapping[str, ParameterSource],
    quantized: Mapping[str, Collection[str]] = MappingProxyType({}),
    ignored: Collection[str] = (),
) -> None:
    """Every expected tensor is there with its shape, and no other.

    Args:
        checkpoint: what is there.
        parameters: what is expected.
        quantized: parameter -> the tensors, checked already, that stand in place of its floats.
        ignored: may be there or not.

    Raises:
        CheckpointError: names the tensor, and the two shapes where they differ.
    """
    expected = {
        name: shape
        for parameter, source in parameters.items()
        if parameter not in quantized
        for name, shape in source.tensors
    }
    for name, shape in expected.items():
        found = checkpoint.tensors.get(name)
        if found is None:
            raise CheckpointError(
                f"{name} {list(shape)} is missing; check that all weight files are in "
                f"{checkpoint.folder}, are named by its index if it has one, and belong to this "
                "config.json."
            )
        if found.shape != shape:
            raise CheckpointError(
                f"{name} is {list(found.shape)} but config.json makes it {list(shape)}; "
                "check that both come from the same revision."
            )
        found.require_float()
    surplus = sorted(set(checkpoint.tensors).difference(expected, ignored, *quantized.values()))
    if surplus:
        raise CheckpointError(
            f"{len(surplus)} tensors do not belong to this model, the first is {surplus[0]}; "
            "check that config.json and the weights come from the same revision."
        )
