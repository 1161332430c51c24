"""A saved session: its tokens with their keys and values in one file.

The file is an uncompressed .npz whose members have checksums; nothing in it is executed. Read
`kv_cache.py` for the arrays.
"""

import math
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from glm_runtime.arrays import CacheArray
from glm_runtime.errors import FolderError
from glm_runtime.folder.manifest import Manifest
from glm_runtime.graph.kv_cache import list_buffers

FORMAT_VERSION = 1
_LONGEST_NAME = 1024


@dataclass(frozen=True)
class SavedSession:
    """The tokens of a session with their keys and values.

    Attributes:
        tokens: T token ids.
        values: keys and values [H, T, D] by name, "0.key", "0.value", "1.key" and so on.
    """

    tokens: tuple[int, ...]
    values: dict[str, CacheArray]


def write_session(path: Path, session: SavedSession, manifest: Manifest) -> None:
    """Write a file beside `path`, then rename it to `path`.

    Raises:
        OSError: the file cannot be written; an older file is left unchanged.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        "format": np.array(FORMAT_VERSION, np.int64),
        "model": _to_bytes(manifest.source.name),
        "fingerprint": _to_bytes(manifest.state_fingerprint),
        "tokens": np.array(session.tokens, np.int64),
        **session.values,
    }
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_session(path: Path, manifest: Manifest) -> SavedSession:
    """Read a file that `write_session` wrote with the same model.

    Raises:
        FolderError: the file is damaged, newer, or was saved with another model.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        try:
            return _read_arrays(path, manifest, file)
        except FolderError:
            raise
        except Exception as error:  # zipfile and numpy raise many classes, also OSError
            raise FolderError(
                f"{path} is not a complete saved session ({error}); save it again, or start a new "
                "one."
            ) from error


def _read_arrays(path: Path, manifest: Manifest, file: IO[bytes]) -> SavedSession:
    model = manifest.model
    with zipfile.ZipFile(file) as members:
        _check_origin(path, manifest, members)
        tokens = _read_array(members, "tokens", 8 * model.context_length)
        is_list = tokens.ndim == 1 and tokens.dtype == np.int64
        if not is_list or tokens.size > model.context_length:
            raise ValueError(f"tokens are {tokens.dtype} {list(tokens.shape)}")
        if ((tokens < 0) | (tokens >= model.vocab_size)).any():
            raise ValueError("a token is outside the vocabulary")
        shape = (model.num_kv_heads, tokens.size, model.head_dim)
        largest = math.prod(shape) * np.dtype(model.cache_dtype).itemsize
        names = list_buffers(model) if tokens.size else []
        values = {name: _read_array(members, name, largest) for name in names}
    for name, of_name in values.items():
        if of_name.shape != shape or of_name.dtype != model.cache_dtype:
            raise ValueError(f"{name} is {of_name.dtype} {list(of_name.shape)}")
    return SavedSession(tuple(tokens.tolist()), values)


def _read_array(members: zipfile.ZipFile, name: str, largest_bytes: int) -> npt.NDArray[Any]:
    """Read one member; its size is checked before memory is allocated for it."""
    info = members.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    with members.open(info) as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size > largest_bytes or size != info.file_size - member.tell():
            raise ValueError(f"{name} is {dtype} {list(shape)}")
        return np.frombuffer(member.read(), dtype).reshape(shape)


def _check_origin(path: Path, manifest: Manifest, members: zipfile.ZipFile) -> None:
    version = int(_read_array(members, "format", 8))
    if version != FORMAT_VERSION:
        raise FolderError(
            f"{path} has format {version} but this glm-run reads {FORMAT_VERSION}; "
            "save it again, or upgrade with `pip install --upgrade glm-export`."
        )
    name, fingerprint = (
        _read_array(members, key, _LONGEST_NAME).tobytes().decode()
        for key in ("model", "fingerprint")
    )
    if fingerprint == manifest.state_fingerprint:
        return
    is_other_export = name == manifest.source.name
    what = f"another export of {name}" if is_other_export else f"the model {name!r}"
    raise FolderError(
        f"{path} was saved with {what} where {manifest.source.name!r} is loaded; "
        "restore it with the folder it came from."
    )


def _to_bytes(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)
