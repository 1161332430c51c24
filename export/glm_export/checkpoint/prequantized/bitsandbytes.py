"""bitsandbytes: int8 with a scale for each row (LLM.int8), and 4-bit codes of a table (nf4, fp4).

The tensors of int8 are `weight` [N, C] and `SCB` [N], the largest value of each row. Those of 4
bits are `weight`, two codes in a byte and the first in the upper half, row after row;
`weight.absmax`, a scale for each block of 64; `weight.quant_map`, the values of the codes; and
`weight.quant_state.bitsandbytes__nf4`, a JSON object. With double quantization `absmax` has 8-bit
codes of `nested_quant_map`, times `nested_absmax` for each 256, plus an offset.
Source: bitsandbytes 0.50, `functional.py` (`QuantState`, `dequantize_4bit`,
`dequantize_blockwise`, `int8_vectorwise_dequant`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from glm_export.checkpoint.checkpoint import Checkpoint, ComputedTensor
from glm_export.checkpoint.prequantized.scaled import (
    DequantizedWeight,
    ScaledWeight,
    check_scaled,
)
from glm_export.errors import CheckpointError
from glm_quantize import FloatArray
from glm_quantize.codes import ByteArray

METHOD = "bitsandbytes"
_LARGEST_CODE = 127
_STATES = ("quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4")
_NESTED = ("nested_absmax", "nested_quant_map")
_CODES = 16


@dataclass(frozen=True)
class BitsAndBytesFormat:
    """quantization_config with `quant_method` bitsandbytes; the tensors tell the rest."""

    settings: Mapping[str, Any]

    @property
    def method(self) -> str:
        """The `quant_method`."""
        return METHOD

    def open_scaled(
        self, checkpoint: Checkpoint, prefix: str, shape: tuple[int, int]
    ) -> DequantizedWeight | None:
        """Open a linear layer of 8-bit or 4-bit codes; see `ScaledFormat`."""
        for state in _STATES:
            if f"{prefix}.weight.{state}" in checkpoint.tensors:
                return _open_four_bits(checkpoint, f"{prefix}.weight", state, shape)
        tensor = checkpoint.tensors.get(f"{prefix}.weight")
        if tensor is None or tensor.dtype != "I8":
            return None
        layout = f"{prefix}.weight_format"
        if layout in checkpoint.tensors and checkpoint.read_raw_rows(layout, 0, 1).any():
            raise CheckpointError(
                f"{layout} is not 0, so that its rows are in the order of one kind of GPU; save "
                "the checkpoint again with bitsandbytes 0.45 or later."
            )
        weight = ScaledWeight(
            checkpoint,
            f"{prefix}.weight",
            f"{prefix}.SCB",
            (1, shape[1]),
            (layout,),
            factor=1 / _LARGEST_CODE,
        )
        check_scaled(weight, shape, METHOD)
        return weight.dequantize()


@dataclass(frozen=True, eq=False)
class _FourBitWeight:
    """A weight [N, C] of 4-bit codes.

    Attributes:
        checkpoint: checkpoint that holds the tensors.
        name: name of the tensor of codes.
        inputs: C.
        values: [16] value of each code.
        block_size: number of codes that share a scale.
        nested: what the scales are made of; None if they are floats.
    """

    checkpoint: Checkpoint
    name: str
    inputs: int
    values: FloatArray
    block_size: int
    nested: "_NestedScales | None"

    def read_rows(self, start: int, stop: int) -> FloatArray:
        """Read rows start ... stop as float32."""
        first, last = start * self.inputs, stop * self.inputs
        data = _read_bytes(self.checkpoint, self.name, first // 2, -(-last // 2))
        codes = np.stack([data >> 4, data & 15], axis=-1).reshape(-1)
        numbers = self.values[codes[first % 2 : first % 2 + last - first]]
        begin, end = first // self.block_size, -(-last // self.block_size)
        scales = np.repeat(self._read_scales(begin, end), self.block_size)
        numbers *= scales[first - begin * self.block_size :][: len(numbers)]
        return numbers.reshape(stop - start, self.inputs)

    def _read_scales(self, start: int, stop: int) -> FloatArray:
        name = f"{self.name}.absmax"
        if self.nested is None:
            return self.checkpoint.read_rows(name, start, stop)
        return self.nested.decode(_read_bytes(self.checkpoint, name, start, stop), start)


@dataclass(frozen=True, eq=False)
class _NestedScales:
    """Scales that are 8-bit codes of a table, with a scale for each block, plus an offset."""

    scales: FloatArray
    values: FloatArray
    block_size: int
    offset: float

    def decode(self, codes: ByteArray, start: int) -> FloatArray:
        """Return the scales of codes from the one with number `start` on."""
        blocks = np.arange(start, start + len(codes)) // self.block_size
        decoded: FloatArray = self.values[codes] * self.scales[blocks] + np.float32(self.offset)
        return decoded


def _open_four_bits(
    checkpoint: Checkpoint, name: str, state_name: str, shape: tuple[int, int]
) -> DequantizedWeight:
    state = _read_state(checkpoint, f"{name}.{state_name}", shape)
    block_size = _read_count(state, "blocksize", name)
    blocks = -(-shape[0] * shape[1] // block_size)
    _require(checkpoint, name, -(-shape[0] * shape[1] // 2))
    _require(checkpoint, f"{name}.quant_map", 4 * _CODES)
    others = [f"{name}.{part}" for part in ("absmax", "quant_map", state_name)]
    nested = None
    if f"{name}.{_NESTED[0]}" in checkpoint.tensors:
        others += [f"{name}.{part}" for part in _NESTED]
        nested = _open_nested(checkpoint, name, state, blocks)
    _require(checkpoint, f"{name}.absmax", blocks if nested else 4 * blocks)
    values = checkpoint.read(f"{name}.quant_map")
    weight = _FourBitWeight(checkpoint, name, shape[1], values, block_size, nested)
    origins = [origin for one in (name, *others) for origin in checkpoint.list_origins(one)]
    return DequantizedWeight(ComputedTensor(weight.read_rows, tuple(origins)), tuple(others))


def _open_nested(
    checkpoint: Checkpoint, name: str, state: Mapping[str, Any], blocks: int
) -> _NestedScales:
    block_size = _read_count(state, "nested_blocksize", name)
    offset = state.get("nested_offset")
    if isinstance(offset, bool) or not isinstance(offset, int | float):
        raise _refuse_state(name, f"nested_offset={offset!r}")
    absmax, quant_map = (f"{name}.{part}" for part in _NESTED)
    _require(checkpoint, absmax, 4 * -(-blocks // block_size))
    _require(checkpoint, quant_map, 4 * 256)
    return _NestedScales(
        checkpoint.read(absmax), checkpoint.read(quant_map), block_size, float(offset)
    )


def _read_state(checkpoint: Checkpoint, name: str, shape: tuple[int, int]) -> Mapping[str, Any]:
    tensor = checkpoint.tensors[name]
    try:
        state = json.loads(_read_bytes(checkpoint, name, 0, tensor.size_bytes).tobytes())
    except (ValueError, RecursionError) as error:
        raise _refuse_state(name, f"no JSON ({error})") from error
    if not isinstance(state, Mapping) or state.get("shape") != list(shape):
        found = state.get("shape") if isinstance(state, Mapping) else state
        raise CheckpointError(
            f"{name} says shape={found!r} but config.json makes it {list(shape)}; check that both "
            "come from the same revision."
        )
    return state


def _read_count(state: Mapping[str, Any], key: str, name: str) -> int:
    value = state.get(key)
    if type(value) is not int or not 1 <= value <= 1 << 20:
        raise _refuse_state(name, f"{key}={value!r}")
    return value


def _refuse_state(name: str, found: str) -> CheckpointError:
    return CheckpointError(
        f"{name}: its quant_state has {found}, which bitsandbytes does not write; download the "
        "checkpoint again."
    )


def _require(checkpoint: Checkpoint, name: str, size_bytes: int) -> None:
    """Refuse a missing tensor and one of another size; its type may be any of that size."""
    tensor = checkpoint.tensors.get(name)
    if tensor is None or tensor.size_bytes != size_bytes:
        found = "is missing" if tensor is None else f"has {tensor.size_bytes} bytes"
        raise CheckpointError(
            f"{name} {found} where {METHOD} needs {size_bytes} bytes; check that all weight files "
            f"are in {checkpoint.folder} and belong to this config.json."
        )


def _read_bytes(checkpoint: Checkpoint, name: str, start: int, stop: int) -> ByteArray:
    """Read bytes start ... stop of a tensor of any type."""
    row_bytes = checkpoint.tensors[name].row_bytes
    first, last = start // row_bytes, -(-stop // row_bytes)
    data = checkpoint.read_raw_rows(name, first, last).reshape(-1)
    return data[start - first * row_bytes : stop - first * row_bytes]
