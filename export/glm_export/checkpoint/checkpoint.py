"""A Hugging Face checkpoint as named tensors that are read row by row on request.

Opening a checkpoint reads only the headers. Rows are read with plain file reads, not through a
memory map, because the pages of a map count as resident memory. This module does not know
architectures. Read next: `model/architectures/`.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glm_export.checkpoint.adapter_files import (
    find_adapter,
    refuse_neighbour,
)
from glm_export.checkpoint.file_states import FileStates, read_states, require_regular_files
from glm_export.checkpoint.json_files import read_json
from glm_export.checkpoint.other_folders import find_other_kind
from glm_export.checkpoint.quantization_settings import add_settings
from glm_export.checkpoint.safetensors_header import StoredTensor, read_header
from glm_export.checkpoint.tensor_names import strip_wrappers
from glm_export.checkpoint.weight_files import WeightFiles, find_weight_files
from glm_export.errors import CheckpointError
from glm_quantize import FloatArray
from glm_quantize.codes import ByteArray

ReadRows = Callable[[int, int], FloatArray]
Origin = tuple[str, str]  # a file and the name of a tensor in it
_CHUNK_ELEMENTS = 1 << 20  # 4 MB of float32 fit in a core's share of the cache
# To read some columns, shorter rows are read whole: copying 8 KB takes about as long as one more
# system call.
_SHORT_ROW_BYTES = 8192
_BAND_BYTES = 1 << 20


@dataclass(frozen=True)
class ComputedTensor:
    """A float tensor whose rows are computed when they are read.

    Attributes:
        read_rows: returns rows start ... stop as float32, in memory of their own.
        origins: the stored tensors from which they are computed.
    """

    read_rows: ReadRows
    origins: tuple[Origin, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder whose config.json and headers were read and checked.

    Attributes:
        folder: the folder.
        config: content of config.json.
        tensors: location, shape and type of each tensor by its name without wrappers; see
            `tensor_names.py`.
        files: the files that hold the tensors, and those that lie beside them unused.
        states: states of all files when the checkpoint was opened. Every read compares them.
        computed: float tensors that are computed from stored ones, for example with a merged
            adapter. Their entries in `tensors` tell the shape.
    """

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    files: WeightFiles
    states: FileStates = field(default_factory=FileStates)
    computed: Mapping[str, ComputedTensor] = field(default_factory=dict)

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold the tensors."""
        return self.files.paths

    def read_rows(self, name: str, start: int, stop: int) -> FloatArray:
        """Read rows start ... stop of a tensor as float32.

        Returns:
            [stop - start, C] float32, or [stop - start] for a vector.

        Raises:
            CheckpointError: the file ends too early or cannot be read, or the tensor has no
                supported float type.
        """
        if name in self.computed:
            return self.computed[name].read_rows(start, stop)
        tensor = self.tensors[name]
        tensor.require_float()
        data = self.read_raw_rows(name, start, stop)
        return _to_float32(data, tensor.dtype).reshape(stop - start, *tensor.shape[1:])

    def read_columns(self, name: str, start: int, stop: int) -> FloatArray:
        """Read columns start ... stop of a matrix [R, M] as float32 [R, stop - start]."""
        tensor = self.tensors[name]
        tensor.require_float()
        data = self.read_raw_columns(name, start, stop)
        return _to_float32(data, tensor.dtype).reshape(len(data), stop - start)

    def read_integers(self, name: str) -> npt.NDArray[np.int64]:
        """Read a whole tensor of type I32 or I64, for example group indices."""
        tensor = self.tensors[name]
        stored = {"I32": "<i4", "I64": "<i8"}[tensor.dtype]
        data = self.read_raw_rows(name, 0, tensor.shape[0]).view(stored)
        return data.astype(np.int64).reshape(tensor.shape)

    def read_raw_rows(self, name: str, start: int, stop: int) -> ByteArray:
        """Read rows start ... stop as bytes [stop - start, bytes per row]."""
        tensor = self.tensors[name]
        data = np.empty((stop - start, tensor.row_bytes), dtype=np.uint8)
        with _open_tensor(tensor, self.states) as descriptor:
            first_byte = tensor.offset_bytes + start * tensor.row_bytes
            _fill(descriptor, data, first_byte)
        return data

    def read_raw_columns(self, name: str, start: int, stop: int) -> ByteArray:
        """Read columns start ... stop of a matrix [R, M] as bytes [R, bytes of these columns]."""
        tensor = self.tensors[name]
        first, last = start * tensor.item_bytes, stop * tensor.item_bytes
        data = np.empty((tensor.shape[0], last - first), dtype=np.uint8)
        if tensor.row_bytes <= _SHORT_ROW_BYTES:
            band = _BAND_BYTES // tensor.row_bytes
            for row in range(0, len(data), band):
                rows = self.read_raw_rows(name, row, min(row + band, len(data)))
                data[row : row + band] = rows[:, first:last]
            return data
        with _open_tensor(tensor, self.states) as descriptor:
            for row, piece in enumerate(data):
                _fill(descriptor, piece, tensor.offset_bytes + row * tensor.row_bytes + first)
        return data

    def read(self, name: str) -> FloatArray:
        """Read a whole tensor as float32."""
        tensor = self.tensors[name]
        return self.read_rows(name, 0, tensor.rows).reshape(tensor.shape)

    def list_origins(self, name: str) -> tuple[Origin, ...]:
        """Return the stored tensors that a tensor comes from."""
        if name in self.computed:
            return self.computed[name].origins
        return ((self.tensors[name].path.name, self.tensors[name].name),)

    def require_float(self, name: str) -> None:
        """Refuse a tensor that holds packed integers or 8-bit floats.

        Raises:
            CheckpointError: it is neither computed nor stored as F32, F16 or BF16.
        """
        if name not in self.computed:
            self.tensors[name].require_float()

    def require_unchanged(self) -> None:
        """Refuse a checkpoint whose config.json or weights are not those that were opened.

        Raises:
            CheckpointError: a file was changed, replaced or removed.
        """
        self.states.require_unchanged([self.folder / "config.json", *self.weight_files])

    def iterate_chunks(self, name: str) -> Iterator[tuple[int, int]]:
        """Yield row ranges of about a million numbers each, in order."""
        tensor = self.tensors[name]
        step = max(1, _CHUNK_ELEMENTS // max(1, tensor.row_elements))
        for start in range(0, tensor.rows, step):
            yield start, min(start + step, tensor.rows)


def open_checkpoint(folder: Path, adapters: Collection[Path] = ()) -> Checkpoint:
    """Read config.json and every header of a checkpoint.

    Args:
        folder: folder of the checkpoint.
        adapters: folders of adapters that will be merged. One of them may be the same folder.

    Raises:
        CheckpointError: a file is missing, truncated or contradicts itself; the message names it.
    """
    with _refuse_unreadable(folder):
        checkpoint = _open_folder(folder)
        _refuse_adapter(folder, adapters)
        return checkpoint


def check_folder(folder: Path, adapters: Collection[Path] = ()) -> None:
    """Check that a checkpoint has a readable config.json and weight files, without reading those.

    Args:
        folder: folder of the checkpoint.
        adapters: folders of adapters that will be merged. One of them may be the same folder.

    Raises:
        CheckpointError: the folder or one of the two is missing or cannot be read.
    """
    with _refuse_unreadable(folder):
        find_weight_files(folder, read_json(_require_config(folder)))
        _refuse_adapter(folder, adapters)


@contextmanager
def _refuse_unreadable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or folder} cannot be read ({error.strerror}); "
            "check the path and its permissions, or download it again."
        ) from error


def _open_folder(folder: Path) -> Checkpoint:
    config_path = _require_config(folder)
    states = read_states(folder)  # before anything is read
    config = add_settings(folder, read_json(config_path))
    files = find_weight_files(folder, config)
    tensors = _read_headers(files.paths)
    for stored_name, file in files.weight_map.items():
        name = strip_wrappers(stored_name)
        if name not in tensors or tensors[name].path.name != file:
            found = f"is in {tensors[name].path.name}" if name in tensors else "is in no file"
            raise CheckpointError(
                f"{files.index.name if files.index else ''} says that {name} is in {file}, but it "
                f"{found}; download the index and the files again, all of one revision."
            )
    states.require_unchanged(files.paths)
    return Checkpoint(folder, config, tensors, files, states)


def _refuse_adapter(folder: Path, adapters: Collection[Path]) -> None:
    adapter = find_adapter(folder)
    if adapter is None or os.path.realpath(folder) in map(os.path.realpath, adapters):
        return
    raise refuse_neighbour(adapter)


def _require_config(folder: Path) -> Path:
    if not folder.is_dir():
        place = f" {folder.parent}" if folder.is_file() else ""
        raise CheckpointError(f"{folder} is not a folder; give the checkpoint's folder{place}.")
    require_regular_files(folder)
    path = folder / "config.json"
    other = None if path.exists() else find_other_kind(folder)
    if other is not None:
        raise other
    return path


def _read_headers(files: Iterable[Path]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for path in files:
        for tensor in _read_header(path):
            name = strip_wrappers(tensor.name)
            if name in tensors and tensors[name].path == path:
                raise CheckpointError(
                    f"{path.name} has both {tensors[name].name} and {tensor.name}, which name the "
                    "same weight, one of them inside a wrapper of a training program; save the "
                    "model again without the wrapper, or remove one of the two tensors."
                )
            if name in tensors:
                raise CheckpointError(
                    f"{tensor.name} is in {tensors[name].path.name} and again in {path.name}; "
                    "remove the file that does not belong to this checkpoint, or download both "
                    "again."
                )
            tensors[name] = tensor
    return tensors


def _read_header(path: Path) -> list[StoredTensor]:
    if path.suffix != ".bin":
        return read_header(path)
    from glm_export.checkpoint.torch_file import read_torch_file  # noqa: PLC0415 - imports torch

    return read_torch_file(path)


@contextmanager
def _open_tensor(tensor: StoredTensor, states: FileStates) -> Iterator[int]:
    """Open the tensor's file as a descriptor, and turn an OSError into a CheckpointError."""
    try:
        with tensor.path.open("rb", buffering=0) as file:
            states.require_same(tensor.path, os.fstat(file.fileno()))
            yield file.fileno()
    except OSError as error:
        raise CheckpointError(
            f"{tensor.path.name}: {tensor.name} cannot be read ({error}); "
            "check the disk, and that no other program changes the checkpoint."
        ) from error


def _fill(descriptor: int, data: ByteArray, offset_bytes: int) -> None:
    """Fill a contiguous array with bytes of the file."""
    view = data.reshape(-1).data
    while view:
        if hasattr(os, "preadv"):
            got = os.preadv(descriptor, [view], offset_bytes)
        else:
            got = _read_at(descriptor, view, offset_bytes)
        if got == 0:
            raise OSError("the file ends too early")
        view = view[got:]
        offset_bytes += got


def _read_at(descriptor: int, view: memoryview, offset_bytes: int) -> int:
    """Read at an offset on Windows, which has no preadv."""
    os.lseek(descriptor, offset_bytes, os.SEEK_SET)
    data = os.read(descriptor, len(view))
    view[: len(data)] = data
    return len(data)


def _to_float32(data: ByteArray, dtype: str) -> FloatArray:
    if dtype == "F32":
        return data.view("<f4").astype(np.float32, copy=False)
    if dtype == "F16":
        return data.view("<f2").astype(np.float32)
    # A bfloat16 number is the upper half of a float32 number.
    widened = data.view("<u2").astype(np.uint32)
    widened <<= 16
    return widened.view(np.float32)
