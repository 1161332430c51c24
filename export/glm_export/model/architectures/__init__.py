"""The registry of architectures by `model_type`. Each architecture has one file and one line here.

An architecture reads config.json and names the tensors. Read `description.py`, then `glm.py`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from glm_export.errors import UnsupportedModelError
from glm_export.model.architectures import chatglm, glm, glm4
from glm_export.model.architectures.description import (
    Architecture,
    DecoderConfig,
    ParameterSource,
)
from glm_export.model.architectures.other_models import find_other_model

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
    "find_architecture",
]


def find_architecture(values: Mapping[str, object]) -> Architecture:
    """Return the architecture that the values of a config.json name.

    Raises:
        UnsupportedModelError: `model_type` is missing or not supported.
    """
    model_type = values.get("model_type")
    other = find_other_model(values)
    if other is not None:
        raise UnsupportedModelError(
            f"config.json says model_type={model_type!r} and is that of {other.name}; "
            f"{other.reason} are not supported: {other.advice}."
        )
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"config.json says model_type={model_type!r}; "
            f"supported are {', '.join(sorted(ARCHITECTURES))}: use a checkpoint of that type."
        )
    return ARCHITECTURES[model_type]
