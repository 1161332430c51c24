"""A folder for output: on this machine, or at an fsspec address such as `s3://bucket/out`.

A file is there as a whole or not at all.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from glm_runtime.errors import PromptError, first_line
from glm_runtime.file_lock import try_lock
from glm_runtime.ray.connection import import_ray
from glm_runtime.ray.folders import is_address

_LOCK_NAME = "_lock"
_UNFINISHED = ".unfinished"


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
        core = import_ray("fsspec.core")
        try:
            self._remote, root = core.url_to_fs(address)
            self._root = str(root).rstrip("/")
            self._remote.makedirs(self._root, exist_ok=True)
        except (ImportError, OSError, ValueError) as error:
            raise PromptError(
                f"the output {address} cannot be opened ({first_line(error)}); check the address, "
                "and install what fsspec needs for it."
            ) from error

    def list_names(self) -> list[str]:
        """Return the names of all complete files, sorted."""
        if self.is_local:
            names = [path.name for path in self._folder.iterdir()]
        else:
            self._remote.invalidate_cache()
            found = self._remote.ls(self._root, detail=False) if self._exists_remotely() else []
            names = [str(path).rsplit("/", 1)[-1] for path in found]
        return sorted(name for name in names if not name.endswith(_UNFINISHED))

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        if self.is_local:
            return (self._folder / name).read_bytes()
        content: bytes = self._remote.cat_file(f"{self._root}/{name}")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file as a whole.

        Raises:
            OSError: it cannot be written, for example because the disk is full.
        """
        if not self.is_local:
            self._remote.pipe_file(f"{self._root}/{name}", content)
            return
        unfinished = self._folder / f"{name}{_UNFINISHED}"
        try:
            with unfinished.open("wb") as file:
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
        with suppress(FileNotFoundError):
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

    def _exists_remotely(self) -> Any:
        return self._remote.exists(self._root)
