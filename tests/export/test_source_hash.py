"""The checkpoint's fingerprint: right, refused for a vanished file, stopped when not needed."""

import hashlib
from pathlib import Path

import pytest

from glm_export.checkpoint.file_states import FileStates, read_states
from glm_export.checkpoint.source_hash import SourceHash
from glm_export.errors import CheckpointError


def test_hashes_every_file(tmp_path: Path) -> None:
    contents = {"b": b"x" * 3_000_000, "a": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with SourceHash(
        {path.name: path for path in tmp_path.iterdir()}, read_states(tmp_path)
    ) as source_hash:
        found = source_hash.result()
    assert list(found) == ["a", "b"]
    for name, content in contents.items():
        assert found[name].size_bytes == len(content)
        assert found[name].sha256 == hashlib.sha256(content).hexdigest()


def test_a_file_that_vanished(tmp_path: Path) -> None:
    with (
        SourceHash({"gone": tmp_path / "gone.safetensors"}, FileStates()) as source_hash,
        pytest.raises(CheckpointError, match=r"became unreadable .*gone\.safetensors.*check the"),
    ):
        source_hash.result()


def test_leaving_early_stops_it(tmp_path: Path) -> None:
    """Ctrl-C once waited for the hash of a whole checkpoint: a minute at 19 GB. A sparse terabyte
    takes over ten minutes to hash, so that this test ends at all is what it shows."""
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    states = read_states(tmp_path)
    with pytest.raises(KeyboardInterrupt), SourceHash({path.name: path}, states) as source_hash:
        raise KeyboardInterrupt
    assert source_hash.result()[path.name].size_bytes < 1 << 40
