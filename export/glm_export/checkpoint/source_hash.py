"""The checkpoint's fingerprint, taken in the background while the weights are being written."""

import hashlib
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from glm_export.errors import CheckpointError
from glm_runtime.folder.manifest import FileEntry

_PIECE_BYTES = 1 << 20


class SourceHash:
    """Hashes files from `__enter__` on; leaving early (an error, Ctrl-C) stops it at once."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = sorted(paths)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> "SourceHash":
        """Start."""
        self._future = self._pool.submit(self._hash_all)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop within a megabyte if it still runs."""
        self._stop.set()
        self._pool.shutdown()

    def result(self) -> dict[str, FileEntry]:
        """Size and hash by file name; waits for them.

        Raises:
            CheckpointError: a file became unreadable meanwhile.
        """
        try:
            return self._future.result()
        except OSError as error:
            raise CheckpointError(
                f"a weight file became unreadable ({error}); "
                "check the disk, and that nothing changes the checkpoint meanwhile."
            ) from error

    def _hash_all(self) -> dict[str, FileEntry]:
        return {path.name: self._hash(path) for path in self._paths}

    def _hash(self, path: Path) -> FileEntry:
        digest = hashlib.sha256()
        size = 0
        with path.open("rb", buffering=0) as file:
            while not self._stop.is_set() and (piece := file.read(_PIECE_BYTES)):
                digest.update(piece)
                size += len(piece)
        return FileEntry(size, digest.hexdigest())
