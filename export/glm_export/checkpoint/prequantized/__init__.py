"""Pre-quantized checkpoints: packed codes are exported unchanged, 8-bit numbers become floats.

This is the registry of formats by the `quant_method` of config.json. Each format has one file and
one line here. Read `description.py`, `gptq.py` and then `matrices.py`, which the plan uses; for
8-bit numbers `scaled.py` and `float8.py`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from glm_export.checkpoint.prequantized import (
    auto_round,
    awq,
    bitsandbytes,
    compressed_tensors,
    float8,
    gptq,
)
from glm_export.checkpoint.prequantized.description import (
    PrequantizedFormat,
    QuantizedLinear,
    ScaledFormat,
    StoredPart,
)
from glm_export.checkpoint.prequantized.matrices import (
    QuantizedMatrix,
    find_matrices,
    restore_order,
)
from glm_export.checkpoint.prequantized.scaled import DequantizedWeight
from glm_export.checkpoint.prequantized.settings import read_object
from glm_export.checkpoint.quantization_settings import KEY
from glm_export.errors import UnsupportedModelError

StoredFormat = PrequantizedFormat | ScaledFormat
FORMATS: Mapping[str, Callable[[Mapping[str, Any]], StoredFormat]] = MappingProxyType(
    {
        auto_round.METHOD: auto_round.read_format,
        awq.METHOD: awq.AwqFormat,
        bitsandbytes.METHOD: bitsandbytes.BitsAndBytesFormat,
        compressed_tensors.METHOD: compressed_tensors.read_format,
        float8.METHOD: float8.Float8Format,
        gptq.METHOD: gptq.GptqFormat,
    }
)

__all__ = [
    "FORMATS",
    "DequantizedWeight",
    "PrequantizedFormat",
    "QuantizedLinear",
    "QuantizedMatrix",
    "ScaledFormat",
    "StoredFormat",
    "StoredPart",
    "find_format",
    "find_matrices",
    "restore_order",
]


def find_format(config: Mapping[str, Any]) -> StoredFormat | None:
    """Return the format that quantization_config of config.json names; None if there is none.

    Raises:
        UnsupportedModelError: the `quant_method` is unknown, or no kernel supports the settings.
    """
    if config.get(KEY) is None:
        return None
    settings = read_object(config, KEY)
    method = settings.get("quant_method")
    if not isinstance(method, str) or method not in FORMATS:
        raise UnsupportedModelError(
            f"config.json says quant_method={method!r}; supported are {', '.join(FORMATS)}: "
            "use a checkpoint in one of these formats, or the one that is not quantized and that "
            "it was made from."
        )
    return FORMATS[method](settings)
