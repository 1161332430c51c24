"""Checkpoints that somebody quantized already: their codes become ours, unchanged.

The registry of formats: config.json's `quant_method` -> how to read its settings. One file each,
one line here. Read `description.py` first, then `gptq.py`; `matrices.py` is what the plan asks.
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
    """The format that config.json's quantization_config names; None if it has none.

    Raises:
        UnsupportedModelError: an unknown `quant_method`, or settings that no kernel computes.
    """
    if config.get("quantization_config") is None:
        return None
    settings = read_object(config, "quantization_config")
    method = settings.get("quant_method")
    if not isinstance(method, str) or method not in FORMATS:
        raise UnsupportedModelError(
            f"config.json says quant_method={method!r}; supported are {', '.join(FORMATS)}: "
            "take a checkpoint in one of these formats, or one that is not quantized."
        )
    return FORMATS[method](settings)
