"""Type, shape and location of each tensor of a `pytorch_model*.bin`, a zip file with a pickle.

PyTorch's restricted reader (`weights_only`) reads the pickle without running code. It makes tensors
without memory, which know their location in the file. `checkpoint.py` reads the tensors.
"""

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from glm_export.checkpoint.json_files import describe_content
from glm_export.checkpoint.safetensors_header import StoredTensor
from glm_export.errors import CheckpointError
from glm_runtime.errors import first_line

_SHOWN_BYTES = 64  # enough to recognise another kind of file
# Names of safetensors; the floats first. The others may be stored beside the weights.
_DTYPES: Mapping[torch.dtype, str] = MappingProxyType(
    {
        **{torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
        **{torch.float64: "F64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"},
        **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8"},
        **{torch.uint8: "U8", torch.bool: "BOOL"},
    }
)


def read_torch_file(path: Path) -> list[StoredTensor]:
    """Read the location of each tensor in a file.

    Raises:
        CheckpointError: the file is broken, compressed or in the format of PyTorch before 1.6, or
            holds anything except plain tensors of a supported type.
        OSError: the file cannot be opened or read.
    """
    with _refuse_damage(path):
        _check_zip(path)
        with FakeTensorMode():
            found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(f"{path.name} holds no tensors by name; download it again.")
    size = path.stat().st_size
    with _refuse_damage(path):
        return [_locate(path, name, value, size) for name, value in found.items()]


@contextmanager
def _refuse_damage(path: Path) -> Iterator[None]:
    """Turn whatever damaged bytes make zipfile, pickle and PyTorch raise into one sentence."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # any class: damaged pickles call functions with any arguments
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the system refuses the file itself
        raise CheckpointError(
            f"{path.name} cannot be read without running its code ({first_line(error)}); "
            "download it again, or use the checkpoint's *.safetensors."
        ) from error


def _check_zip(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            what = describe_content(file.read(_SHOWN_BYTES)) or "it is older, or truncated"
        raise CheckpointError(
            f"{path.name} is not a zip file, which PyTorch writes since version 1.6 ({what}); "
            "download it again, or load and save it with PyTorch."
        )
    with zipfile.ZipFile(path) as archive:
        packed = [info.filename for info in archive.infolist() if info.compress_type]
    if packed:
        raise CheckpointError(
            f"{path.name} is compressed ({packed[0]}); load and save it with PyTorch."
        )


def _locate(path: Path, name: object, value: object, size: int) -> StoredTensor:
    if not isinstance(value, torch.Tensor):
        raise CheckpointError(
            f"{path.name}: {name} is {_describe(value)} where a tensor with numbers is expected; "
            "use a checkpoint that holds weights only."
        )
    dtype = _DTYPES.get(value.dtype)
    if dtype is None:
        raise CheckpointError(
            f"{path.name}: {name} is {_describe(value)}; supported are F32, F16, BF16: use the "
            "checkpoint that is not quantized, or save this one in bfloat16."
        )
    if not value.is_contiguous():
        raise CheckpointError(
            f"{path.name}: {name} is not stored row by row; "
            "make it contiguous and save it again with PyTorch."
        )
    shape = tuple(int(length) for length in value.shape)
    first = int(value.storage_offset()) * value.element_size()
    offset = (value.untyped_storage()._checkpoint_offset or size) + first
    if offset + math.prod(shape) * value.element_size() > size:
        raise CheckpointError(
            f"{path.name}: {name} ends after the end of the file; download it again."
        )
    return StoredTensor(str(name), path, dtype, shape, offset)


def _describe(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor {list(value.shape)} of {value.dtype}"
    return f"a {type(value).__name__}"
