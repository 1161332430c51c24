"""Reading calibration files as documents: plain texts and conversations, with their places.

This module does not know tokens or chat templates. Read next: `corpus.py`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from glm_export.errors import OptionsError
from glm_runtime.errors import describe_os_error

_SUFFIXES = (".txt", ".jsonl")
_DEFAULT_FILE = "data/calibration.jsonl"
_EXPECTED = (
    "an object with `text`, or with `messages` that have a role and a content each, is expected: "
    "correct the line."
)
_KINDS = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


@dataclass(frozen=True)
class Text:
    """A plain text, and the file and line it is from (`place`)."""

    place: str
    text: str


@dataclass(frozen=True)
class Conversation:
    """Messages for a chat template, and the tools they may call."""

    place: str
    messages: tuple[Mapping[str, object], ...]
    tools: tuple[Mapping[str, object], ...] | None


def find_files(path: Path) -> tuple[Path, ...]:
    """Return the file, or the sorted .txt and .jsonl files below a folder; refuse empty ones.

    Raises:
        OptionsError: the file or folder is missing, unreadable, empty or of another kind.
    """
    try:
        files = _list_files(path)
        empty = [file for file in files if _is_empty(file)]
    except OSError as error:
        raise OptionsError(
            f"the calibration text {path} cannot be read ({describe_os_error(error)}); "
            "give a UTF-8 .txt or .jsonl file, or a folder of them."
        ) from error
    if empty:
        raise OptionsError(f"the calibration file {empty[0]} is empty; remove it or fill it.")
    return files


def read_documents(path: Path | None) -> Iterator[Text | Conversation]:
    """Yield the documents of all files in order; without a path, those of the default text.

    Raises:
        OptionsError: a file cannot be read, or a line has the wrong form.
    """
    if path is None:
        packaged = resources.files("glm_export").joinpath(_DEFAULT_FILE)
        yield from _read_lines(_DEFAULT_FILE, packaged.read_text(encoding="utf-8"))
        return
    for file in find_files(path):
        text = _read_utf8(file)
        if file.suffix.lower() == ".txt":
            yield Text(str(file), text)
        else:
            yield from _read_lines(str(file), text)


def _list_files(path: Path) -> tuple[Path, ...]:
    if not path.is_dir():
        if path.suffix.lower() not in _SUFFIXES:
            path.stat()  # a missing file is reported as missing
            raise OptionsError(
                f"the calibration text {path} ends in {path.suffix or 'nothing'!r} where .txt or "
                ".jsonl is expected; rename it according to its content."
            )
        return (path,)
    below = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
    files = tuple(file for file in below if not file.is_dir())
    if not files:
        raise OptionsError(
            f"the calibration folder {path} has no .txt and no .jsonl file in it; "
            "give a folder with at least one."
        )
    return files


def _is_empty(file: Path) -> bool:
    with file.open("rb") as opened:
        return not opened.read(1)


def _read_utf8(file: Path) -> str:
    """Read a text without the byte order mark that some editors write."""
    try:
        return file.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except OSError as error:
        raise OptionsError(
            f"the calibration file {file} cannot be read ({describe_os_error(error)}); check its "
            "permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise OptionsError(
            f"the calibration file {file} is not UTF-8 at byte {error.start} ({error.reason}); "
            "convert it first."
        ) from error


def _read_lines(name: str, text: str) -> Iterator[Text | Conversation]:
    """Yield one document a line, and skip blank lines.

    `splitlines` would also split at Unicode's line separators, which JSON strings may contain.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _read_line(f"{name}, line {number}", line)


def _read_line(place: str, line: str) -> Text | Conversation:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise OptionsError(f"{place}: this is not JSON ({error}); {_EXPECTED}") from error
    if not isinstance(entry, dict):
        raise _refuse(place, f"this is {_name_kind(entry)}")
    text, messages = entry.get("text"), entry.get("messages")
    if (text is None) == (messages is None):
        found = "neither `text` nor" if text is None else "both `text` and"
        raise _refuse(place, f"this has {found} `messages`")
    if messages is not None:
        return Conversation(place, _read_messages(place, messages), _read_tools(place, entry))
    if not isinstance(text, str):
        raise _refuse(place, f"`text` is {_name_kind(text)}")
    return Text(place, text)


def _read_messages(place: str, messages: object) -> tuple[Mapping[str, object], ...]:
    if not isinstance(messages, list) or not messages:
        raise _refuse(place, f"`messages` is {'empty' if messages == [] else _name_kind(messages)}")
    for index, message in enumerate(messages):
        if problem := _find_problem(message):
            raise _refuse(place, f"messages[{index}] {problem}")
    return tuple(messages)


def _find_problem(message: object) -> str | None:
    """Describe what is wrong with a message. One that calls tools may have no content."""
    if not isinstance(message, dict):
        return f"is {_name_kind(message)}"
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        return "has no role" if role is None else f"has the role {role!r}"
    if content is None:
        return None if message.get("tool_calls") else "has no content"
    return None if isinstance(content, str | list) else f"has {_name_kind(content)} as content"


def _read_tools(place: str, entry: dict[str, Any]) -> tuple[Mapping[str, object], ...] | None:
    tools = entry.get("tools")
    if tools is None:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise OptionsError(
            f"{place}: `tools` is not a list of objects; give the functions' JSON schemas."
        )
    return tuple(tools)


def _refuse(place: str, found: str) -> OptionsError:
    return OptionsError(f"{place}: {found}; {_EXPECTED}")


def _name_kind(value: object) -> str:
    return _KINDS[type(value)]
