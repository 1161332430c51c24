"""Finished work of an interrupted export, kept next to the output to continue from.

The folder holds calibrated codes, the data file, and the list of its complete tensors. Its
fingerprint identifies the export; a different export with the same output removes the folder. Open
it only inside a staged folder, which makes sure that no other process uses it. Read
`calibration/state.py` and `written_tensors.py` for its content.
"""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm_export.errors import ExportError, MissingPackageError, OutputError
from glm_export.output.staged_folder import without_empty_parents
from glm_export.text_file import replace_text

_IDENTITY = "export.json"
_FINISHED = ("*.npz", "*.npy", "*.packed", "written.json")  # files of calibration and writing
_BLOCK_BYTES = 512  # unit of st_blocks, on every file system


class Unfinished:
    """The folder of unfinished work for an output; it may not exist."""

    def __init__(self, output: Path) -> None:
        self.folder = find_unfinished(output)
        self.is_open = False

    @property
    def calibration(self) -> Path:
        """Folder of the finished calibration stages."""
        return self.folder / "calibration"

    def count_bytes(self) -> int:
        """Return the allocated disk space, which is less than the size of an unfinished file."""
        return sum(_count_allocated(path) for path in self.folder.rglob("*"))

    def open(self, fingerprint: str, *, is_resumed: bool) -> None:
        """Continue if the fingerprint is the same and `is_resumed`, else start anew."""
        self.is_open = True
        if not (is_resumed and self._read_fingerprint() == fingerprint):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            replace_text(self.folder / _IDENTITY, json.dumps({"fingerprint": fingerprint}))

    def has_progress(self) -> bool:
        """Return True if there is finished work to continue from."""
        kept = (path for pattern in _FINISHED for path in self.folder.rglob(pattern))
        return next(kept, None) is not None

    def remove(self) -> None:
        """Remove the folder and all finished work."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read_fingerprint(self) -> object:
        try:
            return json.loads((self.folder / _IDENTITY).read_text(encoding="utf-8"))["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            return None


def find_unfinished(output: Path) -> Path:
    """Return the path of the folder for an output; the folder may not exist."""
    place = Path(os.path.realpath(output))
    return place.parent / f".{place.name}.unfinished"


@contextmanager
def keep_unfinished(output: Path) -> Iterator[Unfinished]:
    """Keep finished work if the same command may succeed later; remove it after any other end.

    It is kept after a kill, Ctrl-C, a full disk, or if ONNX Runtime cannot run the graph.

    A folder that was not opened is not touched, since it may belong to a running export.
    """
    unfinished = Unfinished(output)
    with without_empty_parents(unfinished.folder):
        try:
            yield unfinished
        except BaseException as error:
            if unfinished.is_open:
                _sort_out(unfinished, error)
            raise
        unfinished.remove()


def _sort_out(unfinished: Unfinished, error: BaseException) -> None:
    """Keep finished work that another run can use, and add to the error that it is kept."""
    is_curable = isinstance(error, OutputError | MissingPackageError)
    is_hopeless = isinstance(error, ExportError) and not is_curable
    if is_hopeless or not unfinished.has_progress():
        unfinished.remove()
    elif is_curable:
        raise type(error)(
            f"{str(error).rstrip('.')}; the finished work is kept in {unfinished.folder}, and "
            "the same command continues from there."
        ) from error


def _count_allocated(path: Path) -> int:
    try:
        status = path.stat()
    except OSError:  # a running export has just removed it
        return 0
    if not stat.S_ISREG(status.st_mode):
        return 0
    blocks = getattr(
        status, "st_blocks", None
    )  # Windows has no st_blocks and allocates the whole file
    return status.st_size if blocks is None else int(blocks) * _BLOCK_BYTES
