"""Keeps the end of what a process writes to stderr, for a sentence about its failure."""

import os
import threading
from typing import Self, TextIO

_KEPT_BYTES = 4096


class LastWords:
    """A file for a process's stderr; its last line can be read at any time.

    What a server logs is not shown, since it could command the terminal, and is not stored, since
    it has no end.
    """

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self.file: TextIO = os.fdopen(writing, "w", encoding="utf-8")
        self._kept = b""
        self._thread = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close this program's end; the thread ends when the process has closed its own."""
        self.file.close()

    @property
    def last_line(self) -> str:
        """The last line that is not blank; empty if there is none."""
        lines = self._kept.decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def wait(self, seconds: float) -> None:
        """Wait until the process has closed its stderr, at most this long."""
        self.file.close()
        self._thread.join(seconds)

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, "rb", buffering=0) as file:
            while content := file.read(_KEPT_BYTES):
                self._kept = (self._kept + content)[-_KEPT_BYTES:]
