"""A folder that is there completely or not at all.

Files are written to a hidden sibling and renamed at the end. A run that was killed leaves only
the sibling, which the next run to the same place removes.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from glm_export.errors import OutputError

# Room for the small files, and for what a file system needs for itself.
_SPARE_BYTES = 64 << 20


@contextmanager
def stage_folder(target: Path, needed_bytes: int, *, is_forced: bool) -> Iterator[Path]:
    """Yield a folder to fill; on success it becomes `target`, on any failure it is removed.

    Args:
        target: where the folder shall be. An existing one is replaced only if `is_forced`.
        needed_bytes: checked against the free disk before anything is written.
        is_forced: replace what is there, after the new folder is complete.

    Raises:
        OutputError: the target exists, or the disk is too small or refuses.
    """
    _check_target(target, is_forced)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        _check_space(target.parent, needed_bytes)
        staging = target.parent / f".{target.name}.partial-{os.getpid()}"
        staging.mkdir()
    except OSError as error:
        raise OutputError(f"{target.parent} cannot be written: {error}.") from error
    try:
        yield staging
        _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_target(target: Path, is_forced: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if not is_forced:
        raise OutputError(f"{target} exists; choose another -o, or replace it with --force.")
    if not (target / "glm_manifest.json").is_file() and any(_list_entries(target)):
        raise OutputError(
            f"{target} is no folder of glm-export, so --force will not replace it; remove it first."
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


def _remove_leftovers(target: Path) -> None:
    """Remove what killed runs left; put an old folder back that was moved aside in a swap."""
    for path in target.parent.glob(f".{target.name}.*-*"):
        kind, _, process = path.name.removeprefix(f".{target.name}.").rpartition("-")
        if kind not in ("partial", "old") or not process.isdigit():
            continue
        if psutil.pid_exists(int(process)) and int(process) != os.getpid():
            raise OutputError(f"process {process} is exporting to {target} now; wait for it.")
        if kind == "old" and not target.exists():
            path.rename(target)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _swap(staging: Path, target: Path) -> None:
    old = target.parent / f".{target.name}.old-{os.getpid()}"
    try:
        if target.exists():
            target.rename(old)
        staging.rename(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.rename(target)
        raise OutputError(f"{target} could not be put in place: {error}.") from error
    shutil.rmtree(old, ignore_errors=True)
