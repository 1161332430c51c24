"""Hashes of the checkpoint's files, computed by a thread while the weights are written.

The hash is that of the file from which the weights are read; see `file_states.py`.
"""

import hashlib
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from glm_export.checkpoint.file_states import FileStates
from glm_export.errors import CheckpointError
from glm_runtime.folder.manifest import FileEntry

_PIECE_BYTES = 1 << 20


class SourceHash:
    """Hashes files in a thread that starts at `__enter__` and is stopped at `__exit__`."""

    def __init__(self, paths: Mapping[str, Path], states: FileStates) -> None:
        """Prepare the hashes of files by name, whose states must be those of `states`."""
        self._paths = dict(sorted(paths.items()))
        self._states = states
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> "SourceHash":
        """Start the thread."""
        self._future = self._pool.submit(self._hash_all)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the thread, after one more megabyte at most."""
        self._stop.set()
        self._pool.shutdown()

    def result(self) -> dict[str, FileEntry]:
        """Wait for the thread, and return size and hash by name.

        Raises:
            CheckpointError: a file could not be read, or was changed since the checkpoint was
                opened.
        """
        try:
            return self._future.result()
        except OSError as error:
            raise CheckpointError(
                f"a weight file became unreadable ({error}); "
                "check the disk, and that no other program changes the checkpoint."
            ) from error

    def _hash_all(self) -> dict[str, FileEntry]:
        return {name: self._hash(path) for name, path in self._paths.items()}

    def _hash(self, path: Path) -> FileEntry:
        digest = hashlib.sha256()
        size = 0
        with path.open("rb", buffering=0) as file:
            self._states.require_same(path, os.fstat(file.fileno()))
            while not self._stop.is_set() and (piece := file.read(_PIECE_BYTES)):
                digest.update(piece)
                size += len(piece)
        return FileEntry(size, digest.hexdigest())
