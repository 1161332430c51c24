"""What every refusal must be: one sentence that says what to do, and nothing left behind."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from glm_export import ExportError, ExportOptions, export
from support.broken_checkpoints import write_small

# What is done to a sound checkpoint.
Damage = Callable[[Path], object]
_LARGE_BYTES = 1 << 24


def list_tree(root: Path) -> dict[str, bytes | int | None]:
    """Every path below `root`, hidden ones too, with its bytes; of large files only the size."""
    return {str(path.relative_to(root)): _read_content(path) for path in sorted(root.rglob("*"))}


@contextmanager
def nothing_left_behind(root: Path) -> Iterator[None]:
    """Every file and folder below `root` is afterwards what it was before."""
    before = list_tree(root)
    yield
    assert list_tree(root) == before


def assert_sentence(message: str, *words: str) -> None:
    """One line, one full stop at its end, an advice after a semicolon or colon, and the words."""
    assert "\n" not in message
    assert message.endswith(".")
    own_words = re.sub(r"\(.*\)", "", message)  # without the cause in another program's words
    assert not re.search(r"[a-z0-9)]\. [A-Z]", own_words)
    assert "; " in message or ": " in message
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"


def assert_export_refused(options: ExportOptions, kind: type[ExportError], *words: str) -> None:
    """The export fails with exactly `kind`, and the folder around the checkpoint stays as it is."""
    with nothing_left_behind(options.checkpoint.parent), pytest.raises(kind) as caught:
        export(options)
    assert caught.type is kind
    assert_sentence(str(caught.value), *words)


def refuse(
    tmp_path: Path, damage: Damage, kind: type[ExportError], *words: str, **values: Any
) -> None:
    """The export of a damaged checkpoint, with these options, is refused."""
    checkpoint = write_small(tmp_path / "checkpoint")
    damage(checkpoint)
    assert_export_refused(ExportOptions(checkpoint, tmp_path / "out", **values), kind, *words)


def _read_content(path: Path) -> bytes | int | None:
    if not path.is_file():
        return None
    size = path.stat().st_size
    return path.read_bytes() if size < _LARGE_BYTES else size
