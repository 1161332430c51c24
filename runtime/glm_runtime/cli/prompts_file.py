"""The file of answers to a file of prompts, which a later run completes."""

import hashlib
import json
from pathlib import Path
from typing import IO

import click

from glm_runtime.errors import PromptError
from glm_runtime.file_lock import try_lock
from glm_runtime.model import Model
from glm_runtime.prompt_lines import PromptLine, Result

_LINE_START = b'{"index": '


class ResultsFile:
    """Writes the answers in the order of the prompts, to stdout or to a file.

    A later run completes the file. Answers that finish before an earlier one are kept in a second
    file, so that nothing is lost when the process is killed.

    Attributes:
        num_done: number of answers in the file.
        num_failed: number of answers with an error.
    """

    def __init__(self, path: Path | None, keys: list[str]) -> None:
        """Open the file and continue after its last complete line.

        Args:
            path: file for the answers; `None` writes to stdout.
            keys: expected `key` of each answer.

        Raises:
            PromptError: the file has other content, or answers for other prompts, settings or
                another model.
            OSError: the file cannot be read or written.
        """
        self._path = path
        self._keys = keys
        self._file: IO[str] | None = None
        self._waiting_file: IO[str] | None = None
        self._waiting: dict[int, Result] = {}
        self.num_done = 0
        self.num_failed = 0
        if path is not None:
            try:
                self._open(path)
            except BaseException:
                self._close_files()
                raise

    @property
    def _waiting_path(self) -> Path | None:
        return self._path and self._path.with_name(f"{self._path.name}.waiting")

    def has(self, index: int) -> bool:
        """Return whether answer number `index` exists."""
        return index < self.num_done or index in self._waiting

    def add(self, index: int, result: Result) -> None:
        """Take answer number `index`, and write all answers whose turn has come."""
        self.num_failed += "error" in result
        self._waiting[index] = result
        if index != self.num_done and self._waiting_file is not None:
            click.echo(_write(result), file=self._waiting_file)
        self._write_next()

    def close(self) -> None:
        """Close the files; the second file is removed if no answer waits in it."""
        if self._waiting_file is not None:
            self._waiting_file.close()
        if self._waiting_path is not None and not self._waiting:
            self._waiting_path.unlink(missing_ok=True)
        self._close_files()  # last, since it releases the lock

    def _close_files(self) -> None:
        for file in (self._waiting_file, self._file):
            if file is not None:
                file.close()

    def _open(self, path: Path) -> None:
        self._file = _open_locked(path)
        whole, found = _read_own(path, self._keys)
        self.num_done = len(found)
        waiting_path = path.with_name(f"{path.name}.waiting")
        for result in _read_lines(waiting_path)[1]:
            index = result.get("index")
            if isinstance(index, int) and self._keys[index : index + 1] == [result.get("key")]:
                self._waiting[index] = result
        self._waiting = {i: one for i, one in self._waiting.items() if i >= self.num_done}
        self.num_failed = sum("error" in one for one in (*found, *self._waiting.values()))
        self._file.truncate(whole)
        lines = "".join(f"{_write(result)}\n" for result in self._waiting.values())
        replacement = waiting_path.with_name(f"{waiting_path.name}.new")
        replacement.write_text(lines, encoding="utf-8", newline="\n")
        replacement.replace(waiting_path)
        self._waiting_file = waiting_path.open("a", encoding="utf-8", newline="\n")
        self._write_next()

    def _write_next(self) -> None:
        while self.num_done in self._waiting:
            click.echo(_write(self._waiting.pop(self.num_done)), file=self._file)
            self.num_done += 1


def _open_locked(path: Path) -> IO[str]:
    """Open a file to append to it, for this process alone.

    Raises:
        PromptError: another process writes to it, or it is a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise PromptError(
            f"{path} is not a regular file, so that a later run could not complete it; choose "
            "another --output, or leave it out to write to stdout."
        )
    file = path.open("a", encoding="utf-8", newline="\n")
    if not try_lock(file.fileno()):
        file.close()
        raise PromptError(
            f"another process writes to {path} now; wait for it, or choose another --output."
        )
    return file


def _write(result: Result) -> str:
    return json.dumps(result, ensure_ascii=False)


def _read_own(path: Path, keys: list[str]) -> tuple[int, list[Result]]:
    """Return the size of the complete lines of an earlier run, and their content."""
    whole, found, half = _read_lines(path)
    is_ours = half.startswith(_LINE_START) or _LINE_START.startswith(half)
    if not is_ours or [one.get("key") for one in found] != keys[: len(found)]:
        raise PromptError(
            f"{path} holds answers for other prompts, settings or another model, or has other "
            "content; choose another file, or delete it."
        )
    return whole, found


def _read_lines(path: Path) -> tuple[int, list[Result], bytes]:
    """Return the size of the complete lines, their content, and the incomplete line after them."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    return len(whole), [_read_result(line) for line in whole.splitlines()], content[len(whole) :]


def make_key(line: PromptLine, model: Model, *settings: object) -> str:
    """Return a hash of all that an answer depends on, by which a later run finds it."""
    parts = (line.text, model.manifest.state_fingerprint, *map(repr, settings))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _read_result(line: bytes) -> Result:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
