"""Prompts in a JSON Lines file, and their answers in another, which a rerun completes."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click

from glm_runtime.chat_messages import ChatOptions
from glm_runtime.cli.options import read_file
from glm_runtime.errors import PromptError
from glm_runtime.generation import Request
from glm_runtime.model import Model
from glm_runtime.settings import GenerationSettings

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
    """Answers in the order of the prompts, each line written as soon as those before it are."""

    def __init__(self, file: IO[str] | None, num_done: int = 0) -> None:
        """`file` None writes to stdout."""
        self._file = file
        self._waiting: dict[int, Result] = {}
        self.num_done = num_done

    def add(self, index: int, result: Result) -> None:
        """Take the answer number `index`; write what is next."""
        self._waiting[index] = result
        while self.num_done in self._waiting:
            result = self._waiting.pop(self.num_done)
            click.echo(json.dumps(result, ensure_ascii=False), file=self._file)
            self.num_done += 1


def open_results(path: Path, keys: list[str]) -> tuple[IO[str], list[Result]]:
    """Open a file of answers to go on where an earlier run ended.

    Args:
        path: may not exist yet.
        keys: what each answer's `key` must be.

    Returns:
        The file, and the answers it has; half a line at its end is cut off.

    Raises:
        PromptError: it holds something else, or answers to other prompts, or of another model or
            other settings.
        OSError: it cannot be read or written.
    """
    if not path.exists():
        return path.open("w", encoding="utf-8", newline="\n"), []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    half = content[len(whole) :]
    found = [_read_result(line) for line in whole.splitlines()]
    is_ours = half.startswith(_LINE_START) or _LINE_START.startswith(half)
    if not is_ours or [one.get("key") for one in found] != keys[: len(found)]:
        raise PromptError(
            f"{path} holds answers to other prompts, or of another model or other settings, or "
            "something else; choose another file, or delete it."
        )
    file = path.open("r+", encoding="utf-8", newline="\n")
    file.truncate(len(whole))
    file.seek(0, os.SEEK_END)
    return file, found


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
