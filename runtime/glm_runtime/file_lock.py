"""Locks of files and folders between processes. The system releases them when a process ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FAR_BYTE = 1 << 30  # Windows locks bytes, which no one can read or write then


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process; return False if another process has it.

    A file system without locks counts as locked, since nothing can be known there.
    """
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            os.lseek(descriptor, _FAR_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for the same folder.

    Windows has no locks of folders, and some network drives have none at all. There the block runs
    without one.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl  # noqa: PLC0415

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
