"""Prepared copies: models whose weights are already packed for this machine's CPU kernels.

ONNX Runtime packs the weights into its own memory at every load. A prepared copy holds them packed
and is memory-mapped, which saves a second or two and lets several processes share the memory. It is
valid for one version of ONNX Runtime on one kind of processor and takes about twice the folder's
space.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from glm_runtime.errors import FolderError, GlmRuntimeError
from glm_runtime.folder.manifest import (
    MODEL_NAME,
    FileEntry,
    Manifest,
    describe_file,
    require_whole,
)
from glm_runtime.folder.strict_json import decode_record, encode_record, parse_json
from glm_runtime.graph.inference import import_onnxruntime, write_packed
from glm_runtime.graph.machine import is_made_by_running, read_cpu_features, read_cpu_name
from glm_runtime.progress import Advance, Progress, ignore_progress, track_stage

_RECORD_NAME = "prepared.json"
_WRITABLE_BY_OTHERS = 0o022


@dataclass(frozen=True)
class PreparedModels:
    """The prepared copies of one user.

    Attributes:
        root: folder with one subfolder for each model, version and processor.
    """

    root: Path

    @classmethod
    def of_user(cls) -> "PreparedModels":
        """Return the copies in the user's cache folder."""
        return cls(Path(platformdirs.user_cache_dir("glm-export", appauthor=False)) / "prepared")

    def locate(self, manifest: Manifest) -> Path:
        """Return the folder of a model's copy for this machine; it may not exist."""
        parts = [
            manifest.fingerprint,
            import_onnxruntime().__version__,
            platform.machine(),
            read_cpu_name(),
            *read_cpu_features(),
        ]
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
        name = re.sub(r"[^\w.-]", "_", manifest.source.name)
        return self.root / f"{name}-{key}"

    def find(
        self, manifest: Manifest, *, is_full: bool = False, progress: Progress = ignore_progress
    ) -> Path | None:
        """Return the graph of a complete copy for this machine; `None` if there is none.

        Args:
            manifest: the model's manifest.
            is_full: whether to compare hashes, not only sizes.
            progress: called with (stage, done, total) while hashing.
        """
        folder = self.locate(manifest)
        if not (_is_own(self.root) and _is_own(folder)):
            return None
        record = _read_record(folder)
        if record is None or MODEL_NAME not in record.files:
            return None
        total = sum(entry.size_bytes for entry in record.files.values())
        advance = track_stage(progress, "checking the copy", total) if is_full else None
        is_whole = all(
            _is_unchanged(folder / name, entry, advance) for name, entry in record.files.items()
        )
        return folder / MODEL_NAME if is_whole else None

    def make(self, folder: Path, manifest: Manifest, progress: Progress = ignore_progress) -> Path:
        """Make a copy if there is none; several processes may do so at the same time.

        Args:
            folder: the exported folder.
            manifest: its manifest.
            progress: called with (stage, done, total).

        Raises:
            FolderError: a file differs from the manifest, onnxruntime refuses the graph, or other
                users may write to the folder of the copies.
            OSError: the copy cannot be written; no part of it is left.
        """
        self._require_own_root()
        self._remove_leftovers()
        found = self.find(manifest)
        if found is not None:
            return found
        place = self.locate(manifest)
        # The fingerprint, by which the copy is found, is that of these bytes.
        require_whole(folder, manifest, is_full=True, progress=progress)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        prefix = f".making-{os.getpid()}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=self.root) as scratch:
            made = Path(scratch) / "model"
            made.mkdir(mode=0o700)
            progress("packing weights", 0, 1)
            write_packed(folder / MODEL_NAME, made / MODEL_NAME)
            total = sum(path.stat().st_size for path in made.iterdir())
            advance = track_stage(progress, "hashing the copy", total)
            files = {path.name: describe_file(path, advance) for path in made.iterdir()}
            record = json.dumps(encode_record(_Record(manifest.fingerprint, files)))
            (made / _RECORD_NAME).write_text(record, encoding="utf-8")
            if place.exists() and self.find(manifest) is None:
                shutil.rmtree(place, ignore_errors=True)  # an incomplete copy
            with contextlib.suppress(OSError):  # another process was faster
                made.rename(place)
        made_path = self.find(manifest)
        if made_path is None:
            raise OSError(f"{place} cannot be written; check its permissions")
        return made_path

    def _require_own_root(self) -> None:
        """Refuse a folder that others may write to, since the hashes of a copy are not compared."""
        if self.root.exists() and not _is_own(self.root):
            raise FolderError(
                f"{self.root} belongs to another user, or other users may write to it, so that a "
                "prepared copy in it could be theirs; delete it, or correct its owner and `chmod "
                "go-w` it."
            )

    def remove(self, manifest: Manifest) -> int:
        """Delete all copies of a model, and leftovers; return the number of bytes freed."""
        freed = self._remove_leftovers()
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            record = _read_record(folder)
            if record is not None and record.fingerprint == manifest.fingerprint:
                freed += _delete(folder)
        return freed

    def _remove_leftovers(self) -> int:
        """Delete what killed processes left half made; return the number of bytes freed."""
        freed = 0
        for path in self.root.glob(".making-*-*"):
            process = path.name.split("-")[1]
            with contextlib.suppress(FileNotFoundError):  # another process removes it too
                if process.isdigit() and not is_made_by_running(path, int(process)):
                    freed += _delete(path)
        return freed


def _is_own(folder: Path) -> bool:
    """Return whether only this user, and the administrator, may write to a folder.

    Windows gives each user a cache folder that other users cannot write to.
    """
    try:
        status = folder.stat()
    except OSError:
        return False
    is_ours = not hasattr(os, "geteuid") or status.st_uid in (0, os.geteuid())
    return is_ours and (os.name == "nt" or not status.st_mode & _WRITABLE_BY_OTHERS)


def _delete(folder: Path) -> int:
    """Delete a folder; return the number of bytes of its files."""
    size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder)
    return size_bytes


@dataclass(frozen=True)
class _Record:
    """The content of prepared.json: the model's fingerprint and the copy's files."""

    fingerprint: str
    files: dict[str, FileEntry]


def _read_record(folder: Path) -> _Record | None:
    try:
        content = parse_json((folder / _RECORD_NAME).read_text(encoding="utf-8"))
        return decode_record(_Record, content, _RECORD_NAME)
    except (OSError, ValueError, GlmRuntimeError):
        return None


def _is_unchanged(path: Path, entry: FileEntry, advance: Advance | None) -> bool:
    """Compare sizes, and with `advance` also hashes."""
    try:
        if path.stat().st_size != entry.size_bytes:
            return False
        return advance is None or describe_file(path, advance) == entry
    except OSError:
        return False
