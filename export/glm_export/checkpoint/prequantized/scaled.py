"""Weights of 8 bits with scales, read as floats: weight[n, c] = number[n, c] * scale of its block.

No kernel computes with them, so they are dequantized while rows are read, and quantized anew.
Source: the OCP 8-bit floating point specification (E4M3, E5M2) and the OCP microscaling formats
(E8M0).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from glm_export.checkpoint.checkpoint import Checkpoint, ComputedTensor
from glm_export.errors import CheckpointError
from glm_quantize import FloatArray
from glm_quantize.codes import ByteArray

SCALED_DTYPES = ("F8_E4M3", "F8_E5M2", "I8")
_EXPONENT_ONLY = "F8_E8M0"
_SCALE_DTYPES = ("F32", "F16", "BF16", _EXPONENT_ONLY)
_E8M0_BIAS = 127


@dataclass(frozen=True)
class DequantizedWeight:
    """A weight that is read as floats.

    Attributes:
        tensor: reads its rows [n, C].
        others: names of tensors that belong to it, besides the one with the weight's own name.
    """

    tensor: ComputedTensor
    others: tuple[str, ...]


@dataclass(frozen=True)
class ScaledWeight:
    """A weight [N, C] of 8-bit numbers, with one scale for each block of rows and columns.

    Attributes:
        checkpoint: checkpoint that holds the tensors.
        weight: name of the tensor of numbers.
        scale: name of the tensor of scales [ceil(N / rows), ceil(C / columns)].
        block: rows and columns of a block.
        others: names of tensors that belong to the weight and are not needed.
        factor: common factor of all scales.
    """

    checkpoint: Checkpoint
    weight: str
    scale: str
    block: tuple[int, int]
    others: tuple[str, ...] = ()
    factor: float = 1.0

    def read_rows(self, start: int, stop: int) -> FloatArray:
        """Read rows start ... stop as float32."""
        tensor = self.checkpoint.tensors[self.weight]
        table = decode_bytes(tensor.dtype)
        rows: FloatArray = table[self.checkpoint.read_raw_rows(self.weight, start, stop)]
        height, width = self.block
        scales = self._read_scales(start // height, -(-stop // height))
        for index, of_block in enumerate(scales, start // height):
            first, last = max(start, index * height), min(stop, (index + 1) * height)
            rows[first - start : last - start] *= np.repeat(of_block, width)[: rows.shape[1]]
        return rows

    def dequantize(self) -> DequantizedWeight:
        """Return the weight as floats."""
        origins = [self.checkpoint.list_origins(name) for name in (self.weight, self.scale)]
        tensor = ComputedTensor(self.read_rows, origins[0] + origins[1])
        return DequantizedWeight(tensor, (self.scale, *self.others))

    def _read_scales(self, start: int, stop: int) -> FloatArray:
        """Read rows start ... stop of the scales, also if they have fewer dimensions."""
        tensor = self.checkpoint.tensors[self.scale]
        if tensor.dtype == _EXPONENT_ONLY:
            data = self.checkpoint.read_raw_rows(self.scale, start, stop)
            return np.ldexp(np.float32(1), data.astype(np.int32) - _E8M0_BIAS)
        scales = self.checkpoint.read_rows(self.scale, start, stop).reshape(stop - start, -1)
        return scales if self.factor == 1 else scales * np.float32(self.factor)


def check_scaled(weight: ScaledWeight, shape: tuple[int, int], method: str) -> None:
    """Check shapes and types of a weight and its scales.

    Raises:
        CheckpointError: the scales are missing, or a tensor has another shape or type.
    """
    found = weight.checkpoint.tensors[weight.weight].shape
    if found != shape:
        raise CheckpointError(
            f"{weight.weight} is {list(found)} but config.json makes it {list(shape)}; check that "
            "both come from the same revision."
        )
    expected = (-(-shape[0] // weight.block[0]), -(-shape[1] // weight.block[1]))
    scales = weight.checkpoint.tensors.get(weight.scale)
    if scales is None:
        raise CheckpointError(
            f"{weight.scale} {list(expected)} is missing, which {method} needs; check that all "
            f"weight files are in {weight.checkpoint.folder} and belong to this config.json."
        )
    if scales.dtype not in _SCALE_DTYPES:
        raise CheckpointError(
            f"{weight.scale} has dtype {scales.dtype} where {method} needs "
            f"{' or '.join(_SCALE_DTYPES)}; check that config.json belongs to these weights."
        )
    if scales.shape not in _list_spellings(expected):
        raise CheckpointError(
            f"{weight.scale} is {list(scales.shape)} but config.json makes it {list(expected)}; "
            "check quantization_config, and that both come from the same revision."
        )


def _list_spellings(shape: tuple[int, int]) -> list[tuple[int, ...]]:
    """Return the shapes that mean the same: [N, 1] is also [N], and [1, 1] also [1] and []."""
    found: list[tuple[int, ...]] = [shape]
    if shape[1] == 1:
        found.append(shape[:1])
    if shape == (1, 1):
        found.append(())
    return found


@cache
def decode_bytes(dtype: str) -> FloatArray:
    """Return the value of each of the 256 bytes of a type, NaN included."""
    codes: ByteArray = np.arange(256, dtype=np.uint8)
    if dtype == "I8":
        return codes.view(np.int8).astype(np.float32)
    mantissa_bits, largest_exponent = {"F8_E4M3": (3, 15), "F8_E5M2": (2, 31)}[dtype]
    sign = np.where(codes & 0x80, np.float32(-1), np.float32(1))
    exponent = (codes & 0x7F).astype(np.int32) >> mantissa_bits
    fraction = (codes & ((1 << mantissa_bits) - 1)) / np.float32(1 << mantissa_bits)
    bias = largest_exponent // 2
    small = np.ldexp(fraction, 1 - bias)
    large = np.ldexp(1 + fraction, exponent - bias)
    values = np.where(exponent == 0, small, large).astype(np.float32)
    if dtype == "F8_E4M3":  # has no infinity and one NaN
        values[codes & 0x7F == 0x7F] = np.nan
    else:
        values[(exponent == largest_exponent) & (fraction == 0)] = np.inf
        values[(exponent == largest_exponent) & (fraction != 0)] = np.nan
    return sign * values
