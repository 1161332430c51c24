"""A folder that is there completely or not at all.

Files are written to a hidden sibling and renamed at the end. A run that was killed leaves only
the sibling, which the next run to the same place removes.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from glm_export.errors import OutputError

# Room for the small files, and for what a file system needs for itself.
_SPARE_BYTES = 64 << 20
# A process's start is known to a second on Linux: /proc/stat gives the boot time in whole ones.
_CLOCK_SLACK_SECONDS = 2.0


@contextmanager
def stage_folder(target: Path, needed_bytes: int, *, is_forced: bool) -> Iterator[Path]:
    """Yield a folder to fill; on success it becomes `target`, on any failure it is removed.

    Args:
        target: where the folder shall be. An existing one is replaced only if `is_forced`. Of a
            link, the folder that it leads to is meant.
        needed_bytes: checked against the free disk before anything is written.
        is_forced: replace what is there, after the new folder is complete.

    Raises:
        OutputError: the target exists, or the disk is too small or refuses.
    """
    place = Path(os.path.realpath(target))
    staging = place.parent / f".{place.name}.partial-{os.getpid()}"
    try:
        with without_empty_parents(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(place)
            check_target(target, is_forced=is_forced)
            _check_space(place.parent, needed_bytes)
            staging.mkdir()
            try:
                yield staging
                _swap(staging, place, is_forced=is_forced)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"{target} could not be written ({error}); correct that, or choose another -o."
        ) from error


def place_file(path: Path, folder: Path) -> None:
    """Put a large file into a staged folder beside it, and keep it where it is if that is free."""
    try:
        (folder / path.name).hardlink_to(path)
    except OSError:  # a file system without links, FAT for one
        path.rename(folder / path.name)


@contextmanager
def without_empty_parents(place: Path) -> Iterator[None]:
    """In the end remove those of the folders above `place` that were not there and are empty."""
    missing = [parent for parent in place.parents if not parent.exists()]
    try:
        yield
    finally:
        for parent in missing:
            with suppress(OSError):  # not empty: it holds what was made
                parent.rmdir()


def check_target(target: Path, *, is_forced: bool) -> None:
    """Refuse a target that exists, unless it is an exported folder and `is_forced`.

    Raises:
        OutputError: what is there may not be replaced.
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
            f"{(needed_bytes + _SPARE_BYTES) / 1e9:.1f} GB; free some, or choose another -o."
        )


def _remove_leftovers(place: Path) -> None:
    """Remove what killed runs left; put an old folder back that was moved aside in a swap."""
    prefix = f".{place.name}."
    for path in list(place.parent.iterdir()):
        kind, _, process = path.name.removeprefix(prefix).rpartition("-")
        is_ours = path.name.startswith(prefix) and kind in ("partial", "old") and process.isdigit()
        if not is_ours:
            continue
        if _is_made_by_running(path, int(process)):
            raise OutputError(f"process {process} is exporting to {place} now; wait for it.")
        if kind == "old" and not place.exists():
            path.rename(place)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _is_made_by_running(path: Path, process: int) -> bool:
    """Whether the process that made `path` still runs; a younger one only inherited its number."""
    try:
        status = psutil.Process(process)
        started, is_zombie = status.create_time(), status.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's, on macOS or Windows
        return True
    return not is_zombie and started < path.stat().st_mtime + _CLOCK_SLACK_SECONDS


def _swap(staging: Path, place: Path, *, is_forced: bool) -> None:
    check_target(place, is_forced=is_forced)  # again: it may have appeared meanwhile
    old = place.parent / f".{place.name}.old-{os.getpid()}"
    try:
        if place.exists():
            place.rename(old)
        staging.rename(place)
    except BaseException:  # Ctrl-C too
        if old.exists() and not place.exists():
            old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)
