"""A Hugging Face checkpoint as lazy named tensors: nothing but headers is read until asked for.

Rows are read with plain file reads, never through a memory map: mapped pages count as resident
memory, and a model's worth of them would. This module knows files, not architectures.
Read next: `architectures/`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glm_export.errors import CheckpointError
from glm_export.safetensors_header import StoredTensor, read_header
from glm_quantize import FloatArray

_INDEX_NAME = "model.safetensors.index.json"
_CHUNK_ELEMENTS = 1 << 20  # 4 MB of float32: stays in a core's share of the cache


@dataclass(frozen=True)
class Checkpoint:
    """A folder with config.json and *.safetensors, its headers checked."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    weight_files: tuple[Path, ...]

    def read_rows(self, name: str, start: int, stop: int) -> FloatArray:
        """Rows start ... stop of a tensor, converted to float32.

        Returns:
            [stop - start, C] float32, or [stop - start] for a vector.

        Raises:
            CheckpointError: the file ends too early or cannot be read.
        """
        tensor = self.tensors[name]
        row_bytes = tensor.row_bytes
        try:
            with tensor.path.open("rb", buffering=0) as file:
                file.seek(tensor.offset_bytes + start * row_bytes)
                data = _read_exactly(file.fileno(), (stop - start) * row_bytes)
        except OSError as error:
            raise CheckpointError(
                f"{tensor.path.name}: {name} cannot be read ({error}); "
                "check the disk, and that nothing changes the checkpoint meanwhile."
            ) from error
        return _to_float32(data, tensor.dtype).reshape(stop - start, *tensor.shape[1:])

    def read(self, name: str) -> FloatArray:
        """A whole tensor as float32: for layers and vectors, not for models."""
        return self.read_rows(name, 0, self.tensors[name].shape[0])

    def iterate_chunks(self, name: str) -> Iterator[tuple[int, int]]:
        """Row ranges of about a million numbers each, in order."""
        tensor = self.tensors[name]
        step = max(1, _CHUNK_ELEMENTS // max(1, tensor.row_elements))
        for start in range(0, tensor.shape[0], step):
            yield start, min(start + step, tensor.shape[0])


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read config.json and every header of a checkpoint.

    Raises:
        CheckpointError: a file is missing, truncated or contradicts itself; the message names it.
    """
    try:
        return _open_folder(folder)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or folder} cannot be read ({error.strerror}); "
            "check the path and its permissions, or download it again."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: the file is missing, is not UTF-8 JSON, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no {path.name} in {path.parent}; "
            "give a Hugging Face folder with config.json and *.safetensors."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} is not readable JSON ({error}); download it again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} holds no JSON object; download it again.")
    return content


def _open_folder(folder: Path) -> Checkpoint:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give the checkpoint's folder.")
    config = read_json(folder / "config.json")
    files = _find_weight_files(folder)
    tensors: dict[str, StoredTensor] = {}
    for path in files:
        for tensor in read_header(path):
            if tensor.name in tensors:
                other = tensors[tensor.name].path.name
                raise CheckpointError(
                    f"{tensor.name} is in {other} and again in {path.name}; "
                    "remove the file that does not belong to this checkpoint."
                )
            tensors[tensor.name] = tensor
    return Checkpoint(folder, config, tensors, tuple(files))


def _find_weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX_NAME
    if index.exists():
        return _read_index(index)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"no *.safetensors in {folder}; convert the checkpoint first.")
    return files


def _read_index(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index.name} has no weight_map; download it again.")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(
                f"{index.name} names {name!r}, which is outside its folder; download it again."
            )
        if not (index.parent / name).is_file():
            raise CheckpointError(
                f"{index.name} names {name}, which is missing; download it into {index.parent}."
            )
    return [index.parent / name for name in names]


def _read_exactly(descriptor: int, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = os.readv(descriptor, [view]) if hasattr(os, "readv") else _read_into(descriptor, view)
        if got == 0:
            raise OSError("the file ends too early")
        view = view[got:]
    return data


def _read_into(descriptor: int, view: memoryview) -> int:
    """What Windows has instead of readv."""
    data = os.read(descriptor, len(view))
    view[: len(data)] = data
    return len(data)


def _to_float32(data: bytearray, dtype: str) -> FloatArray:
    if dtype == "F32":
        return np.frombuffer(data, dtype="<f4").astype(np.float32, copy=False)
    if dtype == "F16":
        return np.frombuffer(data, dtype="<f2").astype(np.float32)
    # bfloat16 is the upper half of a float32.
    widened = np.frombuffer(data, dtype="<u2").astype(np.uint32)
    widened <<= 16
    return widened.view(np.float32)
