"""Pre-quantized checkpoints, whose codes are exported unchanged.

This is the registry of formats by the `quant_method` of config.json. Each format has one file and
one line here. Read `description.py`, `gptq.py` and then `matrices.py`, which the plan uses.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from glm_export.checkpoint.prequantized import awq, compressed_tensors, gptq
from glm_export.checkpoint.prequantized.description import (
    PrequantizedFormat,
    QuantizedLinear,
    StoredPart,
)
from glm_export.checkpoint.prequantized.matrices import (
    QuantizedMatrix,
    find_matrices,
    restore_order,
)
from glm_export.checkpoint.prequantized.settings import read_object
from glm_export.errors import UnsupportedModelError

FORMATS: Mapping[str, Callable[[Mapping[str, Any]], PrequantizedFormat]] = MappingProxyType(
    {
        awq.METHOD: awq.AwqFormat,
        compressed_tensors.METHOD: compressed_tensors.read_format,
        gptq.METHOD: gptq.GptqFormat,
    }
)

__all__ = [
    "FORMATS",
    "PrequantizedFormat",
    "QuantizedLinear",
    "QuantizedMatrix",
    "StoredPart",
    "find_format",
    "find_matrices",
    "restore_order",
]


def find_format(config: Mapping[str, Any]) -> PrequantizedFormat | None:
    """Return the format that quantization_config of config.json names; None if there is none.

    Raises:
        UnsupportedModelError: the `quant_method` is unknown, or no kernel supports the settings.
    """
    if config.get("quantization_config") is None:
        return None
    settings = read_object(config, "quantization_config")
    method = settings.get("quant_method")
    if not isinstance(method, str) or method not in FORMATS:
        raise UnsupportedModelError(
            f"config.json says quant_method={method!r}; supported are {', '.join(FORMATS)}: "
            "use a checkpoint in one of these formats, or one that is not quantized."
        )
    return FORMATS[method](settings)
