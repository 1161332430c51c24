"""Fine-grained FP8, `quant_method` fp8: 8-bit floats with a scale for each block of 128 x 128.

The tensors are `weight` [N, C] in E4M3 and `weight_scale_inv` [ceil(N / rows), ceil(C / columns)],
by which the numbers are multiplied. Without `weight_block_size` one number scales a whole matrix.
Source: transformers' `integrations/finegrained_fp8.py` and the published DeepSeek-V3 checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.prequantized.scaled import (
    SCALED_DTYPES,
    DequantizedWeight,
    ScaledWeight,
    check_scaled,
)
from glm_export.checkpoint.prequantized.settings import read_block, require_name

METHOD = "fp8"
_SCALE = "weight_scale_inv"
_OTHERS = ("activation_scale", "input_scale")  # of static activations, which stay floats here


@dataclass(frozen=True)
class Float8Format:
    """quantization_config with `quant_method` fp8."""

    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check the settings."""
        require_name(self.settings, "fmt", "e4m3", "float8_e4m3fn")
        require_name(self.settings, "activation_scheme", "dynamic", "static")
        self._read_block((1, 1))

    @property
    def method(self) -> str:
        """The `quant_method`."""
        return METHOD

    def open_scaled(
        self, checkpoint: Checkpoint, prefix: str, shape: tuple[int, int]
    ) -> DequantizedWeight | None:
        """Open a linear layer of 8-bit floats; see `ScaledFormat`."""
        tensor = checkpoint.tensors.get(f"{prefix}.weight")
        if tensor is None or tensor.dtype not in SCALED_DTYPES:
            return None
        others = tuple(f"{prefix}.{part}" for part in _OTHERS)
        weight = ScaledWeight(
            checkpoint, f"{prefix}.weight", f"{prefix}.{_SCALE}", self._read_block(shape), others
        )
        check_scaled(weight, shape, METHOD)
        return weight.dequantize()

    def _read_block(self, whole: tuple[int, int]) -> tuple[int, int]:
        block = self.settings.get("weight_block_size")
        if block is None:
            return whole
        return read_block(block, "weight_block_size")
