"""A folder for output: on this machine, or at an fsspec address such as `s3://bucket/out`.

On this machine and in object stores, a file is there as a whole or not at all. At other addresses,
such as SFTP's, a driver that is killed can leave a part of it, which the next run notices.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO

from glm_runtime.errors import PromptError, describe_os_error
from glm_runtime.file_lock import try_lock
from glm_runtime.ray.addresses import explain_errors, is_address, open_address

_LOCK_NAME = "_lock"
_UNFINISHED = ".unfinished"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a file in the system's errors about its content, which name none.

    Raises:
        OSError: the same error with the name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, describe_os_error(error), str(path)) from error


class Storage:
    """Files of one folder by their names.

    Attributes:
        address: path or address of the folder.
        is_local: whether files can be appended to.
    """

    def __init__(self, address: str) -> None:
        """Make the folder if it is not there.

        Raises:
            PromptError: the address cannot be opened, or is a file.
            OSError: the folder cannot be made.
        """
        self.address = address
        self.is_local = not is_address(address)
        self._folder = Path(address)
        if self.is_local:
            if self._folder.exists() and not self._folder.is_dir():
                raise PromptError(f"--output is {address}, a file; give a folder.")
            self._folder.mkdir(parents=True, exist_ok=True)
            return
        with self._explained("opened"):
            self._remote, self._root = open_address(address)
            self._remote.makedirs(self._root, exist_ok=True)

    def list_names(self) -> list[str]:
        """Return the names of all complete files, sorted."""
        if self.is_local:
            names = [path.name for path in self._folder.iterdir()]
        else:
            with self._explained("listed"):
                self._remote.invalidate_cache()
                is_there = self._remote.exists(self._root)
                found = self._remote.ls(self._root, detail=False) if is_there else []
            names = [str(path).rsplit("/", 1)[-1] for path in found]
        return sorted(name for name in names if not name.endswith(_UNFINISHED))

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        if self.is_local:
            return (self._folder / name).read_bytes()
        with self._explained("read", name):
            content: bytes = self._remote.cat_file(f"{self._root}/{name}")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file as a whole.

        Raises:
            OSError: it cannot be written, for example because the disk is full.
        """
        if not self.is_local:
            with self._explained("written", name):
                self._remote.pipe_file(f"{self._root}/{name}", content)
            return
        unfinished = self._folder / f"{name}{_UNFINISHED}"
        try:
            with naming(unfinished), unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._folder / name)
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            raise

    def append_to(self, name: str) -> IO[bytes]:
        """Open a local file to append to it."""
        return (self._folder / name).open("ab", buffering=0)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.is_local:
            (self._folder / name).unlink(missing_ok=True)
            return
        with self._explained("removed", name), suppress(FileNotFoundError):
            self._remote.rm_file(f"{self._root}/{name}")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; addresses have no locks.

        Raises:
            PromptError: another process has it.
        """
        if not self.is_local:
            yield
            return
        with (self._folder / _LOCK_NAME).open("ab") as file:
            if not try_lock(file.fileno()):
                raise PromptError(
                    f"another process writes to {self.address} now; wait for it, or choose another "
                    "--output."
                )
            yield  # the file stays, since another process may have opened it by now

    def _explained(self, verb: str, name: str = "") -> AbstractContextManager[None]:
        """Turn errors of an address into a sentence."""
        place = f"{self.address}/{name}" if name else self.address
        return explain_errors(
            lambda reason: PromptError(
                f"the output {place} cannot be {verb} ({reason}); check the address and its access "
                "rights, and that what fsspec needs for it is installed."
            )
        )
