"""A saved conversation: its tokens, and their keys and values, in one file.

An uncompressed .npz, whose every member has a checksum; nothing in it is ever executed. Read
`kv_cache.py` for what the arrays are.
"""

import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glm_runtime.errors import FolderError
from glm_runtime.kv_cache import Values, list_buffers
from glm_runtime.manifest import Manifest

FORMAT_VERSION = 1
_NPY_HEADER_BYTES = 4096  # more than numpy writes before the numbers of an array


@dataclass(frozen=True)
class SavedSession:
    """What a session holds.

    Attributes:
        tokens: T ids.
        values: keys and values [H, T, D] by "layer.key|value".
    """

    tokens: tuple[int, ...]
    values: dict[str, Values]


def write_session(path: Path, session: SavedSession, manifest: Manifest) -> None:
    """Write beside `path`, then put it in place of what was there.

    Raises:
        OSError: the file cannot be written; what was there is as it was.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        "format": np.array(FORMAT_VERSION, np.int64),
        "model": _to_bytes(manifest.source.name),
        "fingerprint": _to_bytes(manifest.fingerprint),
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
    """Read what `write_session` wrote with this very model.

    Raises:
        FolderError: the file is damaged, newer, or was saved with another model.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            sizes = {info.filename: info.file_size for info in file.infolist()}
        return _read_arrays(path, manifest, sizes)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError) as error:
        raise FolderError(
            f"{path} is not a whole saved session ({error}); save it again, or start a new one."
        ) from error


def _read_arrays(path: Path, manifest: Manifest, sizes: dict[str, int]) -> SavedSession:
    model = manifest.model
    item_bytes = np.dtype(model.cache_dtype).itemsize
    row_bytes = model.num_kv_heads * model.head_dim * item_bytes
    largest = model.context_length * max(row_bytes, 8) + _NPY_HEADER_BYTES
    too_large = [name for name, size in sizes.items() if size > largest]
    if too_large:
        raise ValueError(f"{too_large[0]} has {sizes[too_large[0]]} bytes")
    with np.load(path, allow_pickle=False) as arrays:
        _check_origin(path, manifest, arrays)
        tokens = arrays["tokens"]
        is_list = tokens.ndim == 1 and tokens.dtype == np.int64
        if not is_list or tokens.size > model.context_length:
            raise ValueError(f"tokens are {tokens.dtype} {list(tokens.shape)}")
        if ((tokens < 0) | (tokens >= model.vocab_size)).any():
            raise ValueError("a token is outside the vocabulary")
        names = list_buffers(model) if tokens.size else []
        values = {name: arrays[name] for name in names}
    shape = (model.num_kv_heads, tokens.size, model.head_dim)
    for name, of_name in values.items():
        if of_name.shape != shape or of_name.dtype != model.cache_dtype:
            raise ValueError(f"{name} is {of_name.dtype} {list(of_name.shape)}")
    return SavedSession(tuple(tokens.tolist()), values)


def _check_origin(path: Path, manifest: Manifest, arrays: np.lib.npyio.NpzFile) -> None:
    version = int(arrays["format"])
    if version != FORMAT_VERSION:
        raise FolderError(
            f"{path} is of format {version} but this glm-run reads {FORMAT_VERSION}; "
            "save it again, or upgrade with `pip install --upgrade glm-export`."
        )
    name, fingerprint = (arrays[key].tobytes().decode() for key in ("model", "fingerprint"))
    if fingerprint == manifest.fingerprint:
        return
    is_other_export = name == manifest.source.name
    what = f"another export of {name}" if is_other_export else f"the model {name!r}"
    raise FolderError(
        f"{path} was saved with {what} where {manifest.source.name!r} is loaded; "
        "restore it with the folder it came from."
    )


def _to_bytes(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)
