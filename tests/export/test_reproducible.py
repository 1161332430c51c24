"""The same checkpoint and options give the same bytes, and none of them tells who made them."""

import os
import time
from pathlib import Path

import pytest

import glm_export.pipeline
from glm_export import ExportOptions, export
from glm_export.graph.trace import trace_decoder
from support.broken_checkpoints import edit_config, edit_json, write_small

OWNER = "zaphod-beeblebrox"
SAVED_AT = f"/home/{OWNER}/models/tiny"


def export_as(root: Path, owner: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Export as another user, from another working directory, under another path."""
    home = root / owner
    checkpoint = write_small(home / "models" / "tiny")
    edit_config(checkpoint, _name_or_path=SAVED_AT)  # the source's own bytes, hashed as they are
    edit_json(checkpoint / "tokenizer_config.json", name_or_path=SAVED_AT)
    for name in ("HOME", "USER", "LOGNAME", "USERNAME", "HOSTNAME"):
        monkeypatch.setenv(name, str(home) if name == "HOME" else owner)
    monkeypatch.chdir(home)
    monkeypatch.setattr(glm_export.pipeline, "trace_decoder", trace_decoder)  # no shared trace
    export(ExportOptions(Path("models/tiny"), Path("out"), threads=2))
    return {path.name: path.read_bytes() for path in (home / "out").iterdir()}


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, bytes]]:
    return [export_as(tmp_path, owner, monkeypatch) for owner in (OWNER, "arthur")]


def test_same_bytes_and_no_traces(both: list[dict[str, bytes]], tmp_path: Path) -> None:
    first, second = both
    assert set(first) == set(second)
    for name, content in first.items():
        assert content == second[name], name
    today = time.strftime("%Y-%m-%d")
    words = (str(tmp_path), tmp_path.name, OWNER, today, today.replace("-", ""), "tests/export")
    for name, content in first.items():
        for word in (*words, os.fspath(Path(__file__).parents[2])):
            assert word.encode() not in content, f"{word} is in {name}"
