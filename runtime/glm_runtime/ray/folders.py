"""The model folder on a machine that works: a shared path, or a copy of an fsspec address.

Each machine compares the hashes of all files once, however many workers it has, and again after a
file has changed. The driver says which manifest it means, so that no worker answers with another
model.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from glm_runtime.errors import FolderError
from glm_runtime.file_lock import lock_folder
from glm_runtime.folder.manifest import MANIFEST_NAME, Manifest, read_manifest, require_whole
from glm_runtime.ray.addresses import explain_errors, is_address, open_address

_COPY_BYTES = 1 << 22
_HASH_CHARACTERS = 12  # in messages


@dataclass(frozen=True)
class FolderAddress:
    """A model folder, as the driver found it.

    Attributes:
        address: path or fsspec address.
        is_remote: whether it is an address to copy from.
        digest: hash of its manifest, which has the hashes of all files.
    """

    address: str
    is_remote: bool
    digest: str


def read_address(folder: str) -> tuple[FolderAddress, Manifest]:
    """Read the manifest of a folder, on the driver's machine.

    Raises:
        FolderError: there is no such folder, or its manifest is not valid.
    """
    if not is_address(folder):
        path = Path(folder).absolute()
        manifest = read_manifest(path)
        return FolderAddress(str(path), False, digest_manifest(manifest)), manifest
    with explain_errors(lambda reason: _explain_address(folder, MANIFEST_NAME, reason)):
        storage, root = open_address(folder)
        manifest = Manifest.from_json(storage.cat_file(f"{root}/{MANIFEST_NAME}").decode("utf-8"))
    return FolderAddress(folder, True, digest_manifest(manifest)), manifest


def digest_manifest(manifest: Manifest) -> str:
    """Return the hash of a manifest, which covers all files of its folder."""
    return hashlib.sha256(manifest.to_json().encode()).hexdigest()


def provide_folder(wanted: FolderAddress, cache: Path | None = None) -> Path:
    """Return the folder on this machine, after its hashes were compared.

    Args:
        wanted: the folder that the driver means.
        cache: place of copies and of notes about what was compared; `None` takes the user's cache.

    Raises:
        FolderError: it is not there, it differs from the driver's, or a file is damaged.
        OSError: a copy cannot be written.
    """
    if cache is None:
        cache = Path(platformdirs.user_cache_dir("glm-export", appauthor=False)) / "ray"
    place = cache / wanted.digest[:32]
    place.mkdir(parents=True, exist_ok=True)
    with lock_folder(place):
        folder = _copy(wanted, place / "folder") if wanted.is_remote else Path(wanted.address)
        _require_same(folder, wanted)
        _require_whole_once(folder, place / "compared.json")
    return folder


def _require_same(folder: Path, wanted: FolderAddress) -> None:
    found = digest_manifest(read_manifest(folder))
    if found != wanted.digest:
        raise FolderError(
            f"{folder} holds another model here: the hash of its manifest is "
            f"{found[:_HASH_CHARACTERS]} where the job's is {wanted.digest[:_HASH_CHARACTERS]}; "
            "copy the job's folder to this machine, or use a shared path."
        )


def _require_whole_once(folder: Path, note: Path) -> None:
    manifest = read_manifest(folder)
    state = {"folder": str(folder.resolve())}
    for name in sorted(manifest.files):
        if (folder / name).exists():
            status = (folder / name).stat()
            state[name] = f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
    text = json.dumps(state)
    is_compared = note.is_file() and note.read_text(encoding="utf-8") == text
    require_whole(folder, manifest, is_full=not is_compared)
    if not is_compared:
        note.write_text(text, encoding="utf-8")


def _copy(wanted: FolderAddress, folder: Path) -> Path:
    """Copy a folder from its address, unless it is there."""
    if folder.is_dir():
        return folder
    unfinished = folder.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        _copy_file(wanted, MANIFEST_NAME, unfinished)
        _require_same(unfinished, wanted)
        manifest = read_manifest(unfinished)
        _require_space(manifest, unfinished)
        for name in manifest.files:
            _copy_file(wanted, name, unfinished)
        require_whole(unfinished, manifest, is_full=True)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    unfinished.replace(folder)
    return folder


def _copy_file(wanted: FolderAddress, name: str, folder: Path) -> None:
    with explain_errors(lambda reason: _explain_address(wanted.address, name, reason)):
        storage, root = open_address(wanted.address)
        with storage.open(f"{root}/{name}", "rb") as source, (folder / name).open("wb") as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)


def _require_space(manifest: Manifest, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < manifest.size_bytes:
        raise FolderError(
            f"{folder} has {free / 1e6:,.1f} MB free where the copy of the model takes "
            f"{manifest.size_bytes / 1e6:,.1f} MB; free the disk of this machine."
        )


def _explain_address(address: str, name: str, reason: str) -> FolderError:
    return FolderError(
        f"{name} of {address} cannot be copied ({reason}); check the address, its access rights "
        "and the disk of this machine, and that what fsspec needs for such an address is "
        "installed on every machine."
    )
