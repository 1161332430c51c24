"""What a killed export had finished: kept beside the output, so that the same command goes on.

The folder holds calibrated codes, the data file and which of its tensors are written. It belongs to
one export (its fingerprint); another one to the same place throws it away. Who may use it is
`staged_folder.py`'s to say: open it only inside a staged folder. Read `calibration/state.py` and
`written_tensors.py` for what lies in it.
"""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm_export.errors import ExportError, OutputError
from glm_export.output.staged_folder import without_empty_parents
from glm_export.text_file import replace_text

_IDENTITY = "export.json"
_FINISHED = ("*.npz", "*.npy", "*.packed", "written.json")  # what calibration and writing leave
_BLOCK_BYTES = 512  # what st_blocks counts, on every file system


class Unfinished:
    """The folder beside an output, there or not."""

    def __init__(self, output: Path) -> None:
        self.folder = find_unfinished(output)
        self.is_open = False

    @property
    def calibration(self) -> Path:
        """Where calibration keeps its finished stages."""
        return self.folder / "calibration"

    def count_bytes(self) -> int:
        """Disk that it takes; a data file has its whole size from the start, and holes."""
        return sum(_count_allocated(path) for path in self.folder.rglob("*"))

    def open(self, fingerprint: str, *, is_resumed: bool) -> None:
        """Begin, or go on if this is the same export and `is_resumed`."""
        self.is_open = True
        if not (is_resumed and self._read_fingerprint() == fingerprint):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            replace_text(self.folder / _IDENTITY, json.dumps({"fingerprint": fingerprint}))

    def has_progress(self) -> bool:
        """Whether there is anything to go on from."""
        kept = (path for pattern in _FINISHED for path in self.folder.rglob(pattern))
        return next(kept, None) is not None

    def remove(self) -> None:
        """Away with it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read_fingerprint(self) -> object:
        try:
            return json.loads((self.folder / _IDENTITY).read_text(encoding="utf-8"))["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            return None


def find_unfinished(output: Path) -> Path:
    """The folder for an export to `output`, there or not."""
    place = Path(os.path.realpath(output))
    return place.parent / f".{place.name}.unfinished"


@contextmanager
def keep_unfinished(output: Path) -> Iterator[Unfinished]:
    """Outlives a kill, Ctrl-C and a full disk; not an export that ended or would be refused again.

    What nobody opened is left alone: it may be a running export's.
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
    """Keep what another run can use, and say so."""
    is_hopeless = isinstance(error, ExportError) and not isinstance(error, OutputError)
    if is_hopeless or not unfinished.has_progress():
        unfinished.remove()
    elif isinstance(error, OutputError):
        raise OutputError(
            f"{str(error).rstrip('.')}; what is finished is kept in {unfinished.folder}, and "
            "the same command goes on from there."
        ) from error


def _count_allocated(path: Path) -> int:
    try:
        status = path.stat()
    except OSError:  # a running export's, just removed
        return 0
    if not stat.S_ISREG(status.st_mode):
        return 0
    blocks = getattr(status, "st_blocks", None)  # Windows has none, and fills files at once
    return status.st_size if blocks is None else int(blocks) * _BLOCK_BYTES
