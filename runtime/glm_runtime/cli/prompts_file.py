"""A JSON Lines file of prompts, and a file of answers that a later run completes."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click

from glm_runtime.answering.generation import Request
from glm_runtime.answering.settings import GenerationSettings
from glm_runtime.cli.options import read_file
from glm_runtime.errors import PromptError
from glm_runtime.model import Model
from glm_runtime.text.chat_messages import ChatOptions

Result = dict[str, object]
_LINE_START = b'{"index": '


@dataclass(frozen=True)
class PromptLine:
    """One line with `prompt` or `messages`, and an optional `id` that the answer repeats.

    Attributes:
        number: number of the line, from 1.
        text: text of the line.
        content: JSON object of the line.
    """

    number: int
    text: str
    content: dict[str, object]

    def make_request(
        self, model: Model, settings: GenerationSettings, options: ChatOptions | None
    ) -> Request:
        """Encode the prompt; without `options` it is raw text, not a message.

        Raises:
            PromptError: the template refuses the messages.
        """
        messages = self.content.get("messages")
        if messages is None:
            prompt = self.content["prompt"]
            if options is None:
                return Request(model.tokenizer.encode(str(prompt)), settings)
            messages = [{"role": "user", "content": prompt}]
        assert isinstance(messages, list)
        prepared = model.prepare_chat(messages, options)
        return Request(prepared.token_ids, settings, prepared.form)


def read_prompts(path: Path) -> list[PromptLine]:
    """Read and check every line; empty lines are skipped.

    Raises:
        PromptError: a line is not JSON, or has neither a prompt nor messages.
        OSError: the file cannot be read.
    """
    lines = read_file(path).split("\n")
    prompts = [_read_line(path, i, line) for i, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise PromptError(
            f"{path} holds no prompts; write one JSON object on each line, such as "
            '{"prompt": "..."}.'
        )
    return prompts


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
            self._open(path)

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
        for file in (self._file, self._waiting_file):
            if file is not None:
                file.close()
        if self._waiting_path is not None and not self._waiting:
            self._waiting_path.unlink(missing_ok=True)

    def _open(self, path: Path) -> None:
        whole, found = _read_own(path, self._keys)
        self.num_done = len(found)
        waiting_path = path.with_name(f"{path.name}.waiting")
        for result in _read_lines(waiting_path)[1]:
            index = result.get("index")
            if isinstance(index, int) and self._keys[index : index + 1] == [result.get("key")]:
                self._waiting[index] = result
        self._waiting = {i: one for i, one in self._waiting.items() if i >= self.num_done}
        self.num_failed = sum("error" in one for one in (*found, *self._waiting.values()))
        self._file = path.open("a", encoding="utf-8", newline="\n")
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


def _read_line(path: Path, number: int, text: str) -> PromptLine:
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is not text
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path}, line {number} is not JSON ({error}); correct it.") from error
    is_object = isinstance(content, dict)
    is_prompt = is_object and isinstance(content.get("prompt"), str) and content["prompt"]
    messages = content.get("messages") if is_object else None
    is_chat = isinstance(messages, list) and all(isinstance(one, dict) for one in messages)
    if bool(is_prompt) == bool(is_chat and messages):
        raise PromptError(
            f"{path}, line {number} is not an object with either `prompt`, a text, or "
            "`messages`, a list; correct it."
        )
    return PromptLine(number, text.strip(), content)


def _read_result(line: bytes) -> Result:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
