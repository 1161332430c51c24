"""Where the tensors of one `pytorch_model*.bin` lie: a zip file of a pickle and plain bytes.

The pickle is read by torch's own restricted reader (`weights_only`), which runs nothing, onto
tensors without memory; they say where in the file their numbers are. `checkpoint.py` reads them.
"""

import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from glm_export.checkpoint.safetensors_header import StoredTensor
from glm_export.errors import CheckpointError

_DTYPES: Mapping[torch.dtype, str] = MappingProxyType(
    {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
)


def read_torch_file(path: Path) -> list[StoredTensor]:
    """The tensors of one file.

    Raises:
        CheckpointError: it is broken, of PyTorch's format before 1.6, compressed, or holds
            something else than plain tensors of a supported type.
        OSError: it cannot be opened or read.
    """
    _check_zip(path)
    try:
        with FakeTensorMode():
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path.name} cannot be read without running its code ({reason}); "
            "download it again, or take the checkpoint's *.safetensors."
        ) from error
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(f"{path.name} holds no tensors by name; download it again.")
    size = path.stat().st_size
    return [_locate(path, name, value, size) for name, value in found.items()]


def _check_zip(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path.name} is no zip file, as PyTorch writes since version 1.6: it is older, "
            "truncated, or something else; download it again, or load and save it with PyTorch."
        )
    with zipfile.ZipFile(path) as archive:
        packed = [info.filename for info in archive.infolist() if info.compress_type]
    if packed:
        raise CheckpointError(
            f"{path.name} is compressed ({packed[0]}); load and save it with PyTorch."
        )


def _locate(path: Path, name: object, value: object, size: int) -> StoredTensor:
    if not isinstance(value, torch.Tensor) or not value.dim() or not min(value.shape):
        raise CheckpointError(
            f"{path.name}: {name} is {_describe(value)} where a tensor with numbers is expected; "
            "take a checkpoint that holds weights only."
        )
    dtype = _DTYPES.get(value.dtype)
    if dtype is None:
        raise CheckpointError(
            f"{path.name}: {name} is {_describe(value)}; supported are "
            f"{', '.join(_DTYPES.values())}: get the checkpoint that is not quantized, or "
            "save this one in bfloat16."
        )
    if not value.is_contiguous():
        raise CheckpointError(
            f"{path.name}: {name} lies in the file with its rows mixed; "
            "make it contiguous and save it again with PyTorch."
        )
    shape = tuple(int(length) for length in value.shape)
    first = int(value.storage_offset()) * value.element_size()
    offset = (value.untyped_storage()._checkpoint_offset or size) + first
    if offset + math.prod(shape) * value.element_size() > size:
        raise CheckpointError(f"{path.name}: {name} ends behind the file; download it again.")
    return StoredTensor(str(name), path, dtype, shape, offset)


def _describe(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor {list(value.shape)} of {value.dtype}"
    return f"a {type(value).__name__}"
