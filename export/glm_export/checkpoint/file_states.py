"""Size, time and inode of a checkpoint's files, by which a file that was replaced is noticed.

An export reads a file several times: to hash it, and for each tensor. Without this check a file
that is replaced between two reads gives a folder whose manifest names a checkpoint that its weights
are not from. This file knows nothing about the content of the files.
"""

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from glm_export.errors import CheckpointError
from glm_runtime.text.named_templates import ADDED_FOLDER


@dataclass(frozen=True)
class FileState:
    """What changes if a file is written or replaced. A link stands for the file it leads to."""

    size_bytes: int
    modified_ns: int
    inode: int
    device: int


@dataclass(frozen=True)
class FileStates:
    """The states of files when a checkpoint was opened.

    Attributes:
        by_path: state of each file; a file that was not there is missing here.
    """

    by_path: Mapping[Path, FileState] = field(default_factory=dict)

    def require_same(self, path: Path, status: os.stat_result) -> None:
        """Refuse an open file that is not the one that was there.

        Raises:
            CheckpointError: it has another size, time or inode.
        """
        self._compare(path, make_state(status))

    def require_unchanged(self, paths: Iterable[Path]) -> None:
        """Look at the files again; one that was missing must still be missing.

        Raises:
            CheckpointError: a file was changed, replaced, added or removed.
        """
        for path in paths:
            self._compare(path, _find_state(path))

    def _compare(self, path: Path, found: FileState | None) -> None:
        expected = self.by_path.get(path)
        if found == expected:
            return
        what = "changed" if found and expected else "added" if found else "removed"
        raise CheckpointError(
            f"{path.name} was {what} while the checkpoint was read, so that the result would be a "
            "mixture of two checkpoints; wait until no other program writes to the checkpoint, and "
            "run the command again."
        )


def read_states(folder: Path) -> FileStates:
    """Return the states of all files in a folder, and in its folder of chat templates.

    Raises:
        OSError: the folder cannot be read.
    """
    states = {path: _find_state(path) for path in _list_files(folder)}
    return FileStates({path: state for path, state in states.items() if state is not None})


def require_regular_files(folder: Path) -> None:
    """Refuse pipes and devices, which would be waited for without end.

    Raises:
        CheckpointError: names the first one.
        OSError: the folder cannot be read.
    """
    for path in _list_files(folder):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise CheckpointError(
                f"{path.name} is a pipe or a device where a file is expected; remove it, or "
                "download the checkpoint again."
            )


def _list_files(folder: Path) -> Iterator[Path]:
    yield from folder.iterdir()
    added = folder / ADDED_FOLDER
    if added.is_dir():
        yield from added.iterdir()


def make_state(status: os.stat_result) -> FileState:
    """Return the state in the answer of `os.stat` or `os.fstat`."""
    # Windows numbers devices differently for a path and for an open file.
    device = 0 if sys.platform == "win32" else status.st_dev
    return FileState(status.st_size, status.st_mtime_ns, status.st_ino, device)


def _find_state(path: Path) -> FileState | None:
    with suppress(OSError):
        status = path.stat()
        return make_state(status) if stat.S_ISREG(status.st_mode) else None
    return None
