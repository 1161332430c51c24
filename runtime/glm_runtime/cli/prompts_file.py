"""Prompts in a JSON Lines file, and their answers in another, which a rerun completes."""

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
    """One line: `prompt` or `messages`, and perhaps an `id`, which comes back with the answer.

    Attributes:
        number: from 1 on.
        text: the line itself.
        content: what it says.
    """

    number: int
    text: str
    content: dict[str, object]

    def make_request(
        self, model: Model, settings: GenerationSettings, options: ChatOptions | None
    ) -> Request:
        """Encode the prompt; `options` None sends a `prompt` as it is, not as a message.

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
    """Read and check every line, before anything slow; empty lines do not count.

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
    """Answers in the order of the prompts, in a file that a rerun completes, or on stdout.

    An answer that must wait for one before it lies in a second file until then, so that a kill does
    not lose it.

    Attributes:
        num_done: answers at the beginning of the file.
    """

    def __init__(self, path: Path | None, keys: list[str]) -> None:
        """Open the file, to go on where an earlier run ended; half a line at its end is cut off.

        Args:
            path: may not exist yet; `None` writes to stdout.
            keys: what each answer's `key` must be.

        Raises:
            PromptError: the file holds something else, or answers to other prompts, or of another
                model or other settings.
            OSError: it cannot be read or written.
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
        """Whether the answer number `index` is there already."""
        return index < self.num_done or index in self._waiting

    def add(self, index: int, result: Result) -> None:
        """Take the answer number `index`; write what is next."""
        self.num_failed += "error" in result
        self._waiting[index] = result
        if index != self.num_done and self._waiting_file is not None:
            click.echo(_write(result), file=self._waiting_file)
        self._write_next()

    def close(self) -> None:
        """Nothing waits any more, unless the run is given up."""
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
        self._waiting_file = waiting_path.open("w", encoding="utf-8", newline="\n")
        for result in self._waiting.values():
            click.echo(_write(result), file=self._waiting_file)
        self._write_next()

    def _write_next(self) -> None:
        while self.num_done in self._waiting:
            click.echo(_write(self._waiting.pop(self.num_done)), file=self._file)
            self.num_done += 1


def _write(result: Result) -> str:
    return json.dumps(result, ensure_ascii=False)


def _read_own(path: Path, keys: list[str]) -> tuple[int, list[Result]]:
    """Bytes of the whole lines of an earlier run, and what they say."""
    whole, found, half = _read_lines(path)
    is_ours = half.startswith(_LINE_START) or _LINE_START.startswith(half)
    if not is_ours or [one.get("key") for one in found] != keys[: len(found)]:
        raise PromptError(
            f"{path} holds answers to other prompts, or of another model or other settings, or "
            "something else; choose another file, or delete it."
        )
    return whole, found


def _read_lines(path: Path) -> tuple[int, list[Result], bytes]:
    """Bytes of the whole lines, what they say, and the half line after them."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    return len(whole), [_read_result(line) for line in whole.splitlines()], content[len(whole) :]


def make_key(line: PromptLine, model: Model, *settings: object) -> str:
    """What an answer depends on, so that a rerun knows its own answers."""
    parts = (line.text, model.manifest.fingerprint, *map(repr, settings))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _read_line(path: Path, number: int, text: str) -> PromptLine:
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path}, line {number}: not JSON ({error}); correct it.") from error
    is_object = isinstance(content, dict)
    is_prompt = is_object and isinstance(content.get("prompt"), str) and content["prompt"]
    messages = content.get("messages") if is_object else None
    is_chat = isinstance(messages, list) and all(isinstance(one, dict) for one in messages)
    if bool(is_prompt) == bool(is_chat and messages):
        raise PromptError(
            f"{path}, line {number}: expected is an object with either `prompt`, a text, or "
            "`messages`, a list; correct it."
        )
    return PromptLine(number, text.strip(), content)


def _read_result(line: bytes) -> Result:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
