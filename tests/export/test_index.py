"""An index and its shards, safetensors and PyTorch's own: read, or refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest

from glm_export.checkpoint.checkpoint import open_checkpoint
from glm_export.errors import CheckpointError
from support.broken_checkpoints import (
    INDEXES,
    SHAPES,
    SHARDS,
    WEIGHTS,
    random_tensors,
    split_into_shards,
    write_json,
    write_safetensors,
    write_small,
    write_torch,
)
from support.refusals import assert_sentence

HEAD = "lm_head.weight"


def refuse_to_open(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert_sentence(str(caught.value), *words)


def test_index_chooses_the_shards(tmp_path: Path) -> None:
    """A file that the index does not name is none of the checkpoint's, as in transformers."""
    folder = write_small(tmp_path / "checkpoint")
    split_into_shards(folder, "safetensors")
    write_safetensors(folder / "consolidated.safetensors", random_tensors())
    checkpoint = open_checkpoint(folder)
    assert {path.name for path in checkpoint.weight_files} == set(SHARDS["safetensors"])
    assert set(checkpoint.tensors) == set(SHAPES)


@pytest.fixture(params=["safetensors", "bin"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sharded(tmp_path: Path, kind: str) -> Path:
    folder = write_small(tmp_path / "checkpoint")
    split_into_shards(folder, kind)
    return folder


def edit_map(folder: Path, kind: str, **changes: object) -> None:
    """Change the index's map; ... removes a tensor."""
    weight_map = json.loads((folder / INDEXES[kind]).read_text())["weight_map"] | changes
    kept = {tensor: file for tensor, file in weight_map.items() if file is not ...}
    write_json(folder / INDEXES[kind], {"weight_map": kept})


def test_shards_are_read(sharded: Path, kind: str) -> None:
    checkpoint = open_checkpoint(sharded)
    assert {path.name for path in checkpoint.weight_files} == set(SHARDS[kind])
    assert set(checkpoint.tensors) == set(SHAPES)
    expected = np.frombuffer(random_tensors()[HEAD].data, "<f4")
    np.testing.assert_array_equal(checkpoint.read(HEAD).reshape(-1), expected)


def test_links_to_shards_are_followed(sharded: Path, kind: str, tmp_path: Path) -> None:
    """A hub's cache consists of links to files elsewhere."""
    for name in (*SHARDS[kind], INDEXES[kind]):
        (sharded / name).rename(tmp_path / f"blob-{name}")
        (sharded / name).symlink_to(f"../blob-{name}")
    assert set(open_checkpoint(sharded).tensors) == set(SHAPES)


def test_the_same_tensor_in_two_files(tmp_path: Path) -> None:
    """Under names that transformers does not know, so that none of them comes first."""
    folder = write_small(tmp_path / "checkpoint")
    (folder / WEIGHTS).rename(folder / "weights.safetensors")
    write_safetensors(folder / "extra.safetensors", random_tensors())
    refuse_to_open(folder, "extra.safetensors and again in weights.safetensors", "remove the file")


def test_the_same_tensor_in_two_shards(sharded: Path, kind: str) -> None:
    """Whatever the index says of it."""
    first, second = SHARDS[kind]
    write = write_safetensors if kind == "safetensors" else write_torch
    write(sharded / second, dict(list(random_tensors().items())[7:]))
    name = list(SHAPES)[7]
    refuse_to_open(sharded, f"{name} is in {first} and again in {second}", "or download both again")


def test_index_names_a_missing_shard(sharded: Path, kind: str) -> None:
    (sharded / SHARDS[kind][1]).unlink()
    words = (INDEXES[kind], f"names {SHARDS[kind][1]}, which is missing")
    refuse_to_open(sharded, *words, f"download it into {sharded}")


@pytest.mark.parametrize(("tensor", "place"), [("lm_head.weight", 1), ("invented", -1)])
def test_index_is_wrong_about_a_tensor(sharded: Path, kind: str, tensor: str, place: int) -> None:
    """As transformers sees it, the tensor is missing there; files of two revisions look so."""
    first = SHARDS[kind][0]
    edit_map(sharded, kind, **{tensor: first})
    found = SHARDS[kind][1] if place > 0 else "no file"
    refuse_to_open(
        sharded,
        f"{INDEXES[kind]} says that {tensor} is in {first}, but it is in {found}",
        "of one revision",
    )


@pytest.mark.parametrize(
    "name",
    [
        "../other.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..\\other.safetensors",
        "C:other.safetensors",
        "C:\\other.safetensors",
        "..",
        ".",
        "",
        "a\0b",
        None,
        3,
        ["a"],
    ],
)
def test_index_points_outside(sharded: Path, kind: str, name: object, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "other.safetensors", random_tensors())
    edit_map(sharded, kind, **{HEAD: name})
    words = (f"{INDEXES[kind]} says that {HEAD} is in {name!r}", "outside its folder")
    refuse_to_open(sharded, *words, "download it again")


@pytest.mark.parametrize("content", [{}, {"weight_map": {}}, {"weight_map": ["a.safetensors"]}])
def test_index_without_a_map(tmp_path: Path, kind: str, content: object) -> None:
    folder = write_small(tmp_path / "checkpoint")
    (folder / WEIGHTS).unlink()
    write_json(folder / INDEXES[kind], content)
    refuse_to_open(folder, f"{INDEXES[kind]} has no weight_map; download it again")


def test_index_that_is_not_json(sharded: Path, kind: str) -> None:
    (sharded / INDEXES[kind]).write_text("{")
    refuse_to_open(sharded, f"{INDEXES[kind]} is not readable JSON")
