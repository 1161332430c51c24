"""The header of a *.safetensors file: type, shape and location of each tensor.

The check is as strict as the format: every byte belongs to exactly one tensor. `checkpoint.py`
reads the tensors.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm_export.checkpoint.json_files import describe_content
from glm_export.errors import CheckpointError

# Source: the safetensors format: 8 bytes little-endian header length, JSON header, then the data.
_LENGTH_BYTES = 8
_SHOWN_BYTES = 64  # enough to recognise another kind of file
_MAX_HEADER_BYTES = 100_000_000
_FLOAT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
# Further types: packed codes, indices, shapes and 8-bit floats of pre-quantized checkpoints, and
# what training programs store beside the weights.
_OTHER_BYTES = {
    **{"F64": 8, "C64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "BOOL": 1},
    **{"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1},
}
_ITEM_BYTES = _FLOAT_BYTES | _OTHER_BYTES


@dataclass(frozen=True)
class StoredTensor:
    """Location of a tensor [N, C] or [N] in a file, row-major; a single number has shape []."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int

    @property
    def is_float(self) -> bool:
        """True if its dtype is F32, F16 or BF16."""
        return self.dtype in _FLOAT_BYTES

    @property
    def rows(self) -> int:
        """Number of rows: N, or 1 for a single number without dimensions."""
        return self.shape[0] if self.shape else 1

    @property
    def row_elements(self) -> int:
        """Number of elements in one row: C, or 1 for a vector."""
        return math.prod(self.shape[1:])

    @property
    def item_bytes(self) -> int:
        """Bytes of one element."""
        return _ITEM_BYTES[self.dtype]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.row_elements * self.item_bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.rows * self.row_bytes

    def require_float(self) -> None:
        """Refuse packed integers and 8-bit floats.

        Raises:
            CheckpointError: its dtype is not F32, F16 or BF16.
        """
        if not self.is_float:
            raise _refuse_dtype(self.path, self.name, self.dtype)


def read_header(path: Path) -> list[StoredTensor]:
    """Read the location of each tensor in a file, in the order of their bytes.

    Args:
        path: the file.

    Raises:
        CheckpointError: the header is broken, or does not account for every byte of the file.
        OSError: the file cannot be opened or read.
    """
    size = path.stat().st_size
    header = _read_header_bytes(path, size)
    try:
        tensors = _parse_header(path, header)
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} has an invalid safetensors header ({error}); download it again."
        ) from error
    tensors.sort(key=lambda tensor: (tensor.offset_bytes, tensor.size_bytes))  # empty ones first
    _check_layout(path, tensors, _LENGTH_BYTES + len(header), size)
    return tensors


def _read_header_bytes(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        start = file.read(_SHOWN_BYTES)
        prefix = start[:_LENGTH_BYTES]
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == _LENGTH_BYTES else 0
        if not 2 <= length <= min(_MAX_HEADER_BYTES, size - _LENGTH_BYTES):
            what = describe_content(start) or "it is truncated, or not a safetensors file"
            raise CheckpointError(
                f"{path.name} has {size} bytes and no whole safetensors header ({what}); download "
                "it again."
            )
        file.seek(_LENGTH_BYTES)
        return file.read(length)


def _parse_header(path: Path, header: bytes) -> list[StoredTensor]:
    entries = json.loads(header.decode("utf-8"))
    if not isinstance(entries, dict):
        raise TypeError("it is not a JSON object")
    entries.pop("__metadata__", None)
    data_offset = _LENGTH_BYTES + len(header)
    for name, entry in entries.items():
        if not isinstance(entry, dict) or not {"data_offsets", "shape", "dtype"} <= set(entry):
            raise TypeError(f"{name} has no dtype, shape and data_offsets")
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in _ITEM_BYTES:
            raise _refuse_dtype(path, name, entry["dtype"])
    return [_parse_entry(path, name, entry, data_offset) for name, entry in entries.items()]


def _check_layout(path: Path, tensors: list[StoredTensor], start: int, size: int) -> None:
    """Refuse overlapping tensors, holes, and bytes that belong to no tensor."""
    end = start
    for tensor in tensors:
        if tensor.offset_bytes != end:
            raise CheckpointError(
                f"{path.name}: {tensor.name} starts at byte {tensor.offset_bytes} where {end} is "
                "expected, so tensors overlap or leave a hole; download it again."
            )
        end += tensor.size_bytes
        if end > size:
            raise CheckpointError(
                f"{path.name} has {size} bytes but {tensor.name} ends at byte {end}: "
                "the file is truncated; download it again."
            )
    if end < size:
        raise CheckpointError(
            f"{path.name} has {size} bytes but its tensors end at byte {end}; download it again."
        )


def _parse_entry(path: Path, name: str, entry: Mapping[str, Any], data_offset: int) -> StoredTensor:
    begin, end = _read_sizes(entry, "data_offsets")
    shape = _read_sizes(entry, "shape")
    dtype = entry["dtype"]
    tensor = StoredTensor(name, path, dtype, shape, data_offset + begin)
    if end - begin != tensor.size_bytes:
        raise CheckpointError(
            f"{path.name}: {name} {list(shape)} of {dtype} does not fill bytes {begin}-{end}; "
            "download it again."
        )
    return tensor


def _refuse_dtype(path: Path, name: str, dtype: object) -> CheckpointError:
    floats = ", ".join(_FLOAT_BYTES)
    return CheckpointError(
        f"{path.name}: {name} has dtype {dtype}; supported are {floats}, and codes that "
        "config.json's quantization_config describes: get the checkpoint that is not quantized, "
        "or save this one in bfloat16."
    )


def _read_sizes(entry: Mapping[str, Any], key: str) -> tuple[int, ...]:
    sizes = entry[key]
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise TypeError(f"{key} is not a list of whole numbers")
    return tuple(sizes)
