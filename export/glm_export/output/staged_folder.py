"""An output folder that is either complete or missing.

Files are written to a hidden folder next to the output, which is renamed at the end. A killed run
leaves only the hidden folder, which the next run with the same output removes.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glm_export.errors import OutputError
from glm_runtime.file_lock import lock_folder
from glm_runtime.graph.machine import is_made_by_running

# Free disk for small files and for the file system itself.
_SPARE_BYTES = 64 << 20


@contextmanager
def stage_folder(target: Path, needed_bytes: int, *, is_forced: bool) -> Iterator[Path]:
    """Yield a folder to fill. On success it becomes `target`; on failure it is removed.

    Args:
        target: path of the output folder; a link stands for the folder that it leads to.
        needed_bytes: disk space that is checked before anything is written.
        is_forced: replace an existing target, once the new folder is complete.

    Raises:
        OutputError: the target exists, or the disk is too small or cannot be written.
    """
    place = Path(os.path.realpath(target))
    staging = place.parent / f".{place.name}.partial-{os.getpid()}"
    try:
        with without_empty_parents(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            with lock_folder(place.parent):  # another export may start in the same moment
                _remove_leftovers(place)
                check_target(target, is_forced=is_forced)
                _check_space(place.parent, needed_bytes)
                staging.mkdir()
            try:
                _remove_leftovers(place, staging)  # where there are no locks, both are refused
                yield staging
                _swap(staging, place, is_forced=is_forced)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"{target} could not be written ({error}); correct that, or choose another -o."
        ) from error


def place_file(path: Path, folder: Path) -> None:
    """Put a large file into a staged folder: by a second link if possible, else by moving it."""
    try:
        (folder / path.name).hardlink_to(path)
    except OSError:  # a file system without links, for example FAT
        path.rename(folder / path.name)


@contextmanager
def without_empty_parents(place: Path) -> Iterator[None]:
    """At the end, remove the empty parent folders of `place` that did not exist at the start."""
    missing = [parent for parent in place.parents if not parent.exists()]
    try:
        yield
    finally:
        for parent in missing:
            with suppress(OSError):  # it is not empty
                parent.rmdir()


def check_target(target: Path, *, is_forced: bool) -> None:
    """Refuse a target that exists, unless it is an exported folder and `is_forced`.

    Raises:
        OutputError: the target may not be replaced.
    """
    if not target.exists() and not target.is_symlink():
        return
    if not is_forced:
        raise OutputError(f"{target} exists; choose another -o, or replace it with --force.")
    if os.path.ismount(target):
        raise OutputError(
            f"{target} is a mount point, which cannot be replaced; choose a folder inside it as -o."
        )
    if not (target / "glm_manifest.json").is_file() and any(_list_entries(target)):
        raise OutputError(
            f"{target} is not a folder of glm-export, so --force will not replace it; "
            "remove it first."
        )


def _list_entries(target: Path) -> list[Path]:
    return list(target.iterdir()) if target.is_dir() else [target]


def _check_space(parent: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(parent).free
    if free < needed_bytes + _SPARE_BYTES:
        raise OutputError(
            f"{parent} has {free / 1e9:.1f} GB free but the folder needs "
            f"{(needed_bytes + _SPARE_BYTES) / 1e9:.1f} GB; free disk space, or choose another -o."
        )


def _remove_leftovers(place: Path, own: Path | None = None) -> None:
    """Remove what killed runs left, and put an old folder back that a killed swap had moved."""
    prefix = f".{place.name}."
    for path in list(place.parent.iterdir()):
        kind, _, process = path.name.removeprefix(prefix).rpartition("-")
        is_ours = path.name.startswith(prefix) and kind in ("partial", "old") and process.isdigit()
        if not is_ours or path == own:
            continue
        if is_made_by_running(path, int(process)):
            raise OutputError(f"process {process} is exporting to {place} now; wait for it.")
        if kind == "old" and not place.exists():
            with suppress(FileNotFoundError):  # that run has just ended
                path.rename(place)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _swap(staging: Path, place: Path, *, is_forced: bool) -> None:
    check_target(place, is_forced=is_forced)  # checked again, since it may exist by now
    old = place.parent / f".{place.name}.old-{os.getpid()}"
    try:
        if place.exists():
            place.rename(old)
        staging.rename(place)
    except BaseException:  # including Ctrl-C
        if old.exists() and not place.exists():
            old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)
