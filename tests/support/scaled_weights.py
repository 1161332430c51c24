"""Weights of 8-bit numbers with scales, written and dequantized by the formats' definitions.

torch's own 8-bit floats say what a byte means; the exporter does not use them.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from support.broken_checkpoints import RawTensor
from support.prequantized_tensors import COMPRESSED, floats, round_to

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
TYPES = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I8": torch.int8}
FP8 = "fp8"


@dataclass(frozen=True)
class ScaledRecipe:
    """How a linear is stored.

    Attributes:
        method: config.json's quant_method.
        strategy: tensor, channel, group or block (of compressed-tensors); block for fp8.
        block: rows and columns of a block, or (1, size) for a group.
        dtype: of the numbers.
        scale_dtype: F32, F16 or BF16.
    """

    method: str = COMPRESSED
    strategy: str = "channel"
    block: tuple[int, int] = (1, 1 << 20)
    dtype: str = "F8_E4M3"
    scale_dtype: str = "F32"

    @property
    def name(self) -> str:
        """For a test's id."""
        return f"{self.method}-{self.strategy}-{self.dtype}-{self.scale_dtype}"

    @property
    def scale_name(self) -> str:
        """End of the name of the scales."""
        return "weight_scale_inv" if self.method == FP8 else "weight_scale"


def decode(data: Bytes, dtype: str) -> Floats:
    """What torch takes the bytes for."""
    values: Floats = torch.from_numpy(data.copy()).view(TYPES[dtype]).float().numpy()
    return values


def draw_scaled(
    prefix: str, shape: tuple[int, int], recipe: ScaledRecipe
) -> tuple[dict[str, RawTensor], Floats]:
    """The tensors of a linear, and its weight, weight by weight."""
    random = np.random.default_rng(zlib.crc32(prefix.encode()))
    data = random.integers(0, 256, shape, dtype=np.uint8)
    if recipe.dtype == "F8_E5M2":
        data &= 0xBF  # numbers below 2
    elif recipe.dtype == "F8_E4M3":
        data[data & 0x7F == 0x7F] = 0  # NaN
    height, width = (min(size, length) for size, length in zip(recipe.block, shape, strict=True))
    counts = (-(-shape[0] // height), -(-shape[1] // width))
    scales = random.uniform(0.5, 2, counts).astype(np.float32) / 1000
    scales = round_to(scales, recipe.scale_dtype)
    numbers = decode(data, recipe.dtype)
    weight = np.empty(shape, dtype=np.float32)
    for row, column in np.ndindex(*shape):
        weight[row, column] = numbers[row, column] * scales[row // height, column // width]
    stored = scales.reshape(-1) if recipe.strategy == "tensor" else scales
    return {
        f"{prefix}.weight": RawTensor(recipe.dtype, shape, data.tobytes()),
        f"{prefix}.{recipe.scale_name}": floats(stored, recipe.scale_dtype),
    }, weight


def describe_scaled(recipe: ScaledRecipe) -> dict[str, Any]:
    """config.json's quantization_config, as the programs write it."""
    if recipe.method == FP8:
        return {
            "quant_method": FP8,
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "weight_block_size": list(recipe.block),
        }
    kind = "int" if recipe.dtype == "I8" else "float"
    weights = {
        "num_bits": 8,
        "type": kind,
        "symmetric": True,
        "dynamic": False,
        "strategy": recipe.strategy,
        "group_size": recipe.block[1] if recipe.strategy == "group" else None,
        "block_structure": list(recipe.block) if recipe.strategy == "block" else None,
        "actorder": None,
    }
    group = {
        "format": f"{kind}-quantized",
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": {"num_bits": 8, "type": kind, "dynamic": True, "strategy": "token"},
        "output_activations": None,
    }
    return {
        "quant_method": COMPRESSED,
        "format": f"{kind}-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
    }
