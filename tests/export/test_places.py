"""Checkpoints as people have them: linked from a cache, under odd names, read-only, tuned, large.

All of this was seen working; these tests keep it so.
"""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import glm_runtime
from glm_export import ExportOptions, export
from glm_export.checkpoint.checkpoint import open_checkpoint
from glm_runtime import GenerationSettings, SamplingSettings
from glm_runtime.folder.manifest import read_manifest
from support.broken_checkpoints import WEIGHTS, edit_config, write_json, write_small
from support.graphs import PlainGraph
from support.refusals import list_tree
from support.tiny_models import TinyShape, build_model, build_tokenizer, write_checkpoint

ODD_NAMES = (
    "with a space",
    "100%20[*]?{x}",
    "'quotes' \"too\"",
    "模型 ümlaut 🙂",
    "-o",
    "a.b.onnx",
)
GREEDY = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=4)


def link_as_cached(folder: Path, cache: Path) -> Path:
    """Move the files to blobs with hashes for names, as the cache of Hugging Face has them."""
    repository = cache / "models--zai-org--GLM-4-9B-0414"
    snapshot = repository / "snapshots" / "645b8482"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(repository / "blobs" / f"{number:040x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


def export_and_ask(checkpoint: Path, output: Path) -> list[int]:
    """Export in int4 and generate four tokens."""
    export(ExportOptions(checkpoint, output, method="rtn", verify="tensors"))
    model = glm_runtime.load(output, device="cpu")
    return [piece.token_id for piece in model.generate("Hello", GREEDY)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    root = tmp_path_factory.mktemp("plain")
    return export_and_ask(write_small(root / "checkpoint"), root / "out")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_of_folders(tmp_path: Path, expected: list[int], name: str) -> None:
    checkpoint = write_small(tmp_path / name / "checkpoint")
    checkpoint = checkpoint.rename(tmp_path / name / name)
    assert export_and_ask(checkpoint, tmp_path / name / f"out {name}") == expected


def test_links_of_a_cache(tmp_path: Path, expected: list[int]) -> None:
    """Files are links into another folder, whose names say nothing."""
    snapshot = link_as_cached(write_small(tmp_path / "checkpoint"), tmp_path)
    assert export_and_ask(snapshot, tmp_path / "out") == expected
    sources = read_manifest(tmp_path / "out").source.files
    assert WEIGHTS in sources and "tokenizer.json" in sources
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_symlink()]


def test_a_linked_folder(tmp_path: Path, expected: list[int]) -> None:
    write_small(tmp_path / "place" / "checkpoint")
    (tmp_path / "link").symlink_to("place/checkpoint")
    assert export_and_ask(tmp_path / "link", tmp_path / "out") == expected


def test_nothing_is_written_into_the_checkpoint(tmp_path: Path, expected: list[int]) -> None:
    """It may be read-only; for root, who may write anyway, the files are compared."""
    checkpoint = write_small(tmp_path / "place" / "checkpoint")
    before = list_tree(tmp_path / "place"), checkpoint.stat().st_mtime_ns
    for path in (*checkpoint.iterdir(), checkpoint):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert export_and_ask(checkpoint, tmp_path / "out") == expected
    assert (list_tree(tmp_path / "place"), checkpoint.stat().st_mtime_ns) == before
    assert os.access(tmp_path / "out" / "config.json", os.W_OK)
    checkpoint.chmod(0o755)


@pytest.mark.parametrize("border", [1 << 31, 1 << 32])
def test_tensors_across_two_and_four_gigabytes(tmp_path: Path, border: int) -> None:
    """A sparse file: a tensor that crosses the border, and one after it."""
    folder = write_small(tmp_path / "checkpoint")
    rows = border // 4096 + 1
    header = {
        "big": {"dtype": "F32", "shape": [rows, 1024], "data_offsets": [0, rows * 4096]},
        "end": {"dtype": "F32", "shape": [2], "data_offsets": [rows * 4096, rows * 4096 + 8]},
    }
    text = json.dumps(header).encode()
    start = 8 + len(text)
    with (folder / WEIGHTS).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.seek(start + border - 8)
        file.write(np.array([1.5, 2.5, 3.5, 4.5], "<f4").tobytes())
        file.seek(start + rows * 4096)
        file.write(np.array([5.5, 6.5], "<f4").tobytes())
    checkpoint = open_checkpoint(folder)
    last = checkpoint.read_rows("big", rows - 2, rows).reshape(-1)
    place = border // 4 - (rows - 2) * 1024
    np.testing.assert_array_equal(last[place - 2 : place + 2], [1.5, 2.5, 3.5, 4.5])
    assert np.count_nonzero(last) == 4
    np.testing.assert_array_equal(checkpoint.read("end"), [5.5, 6.5])


@pytest.mark.parametrize("is_tied", [False, True])
def test_a_vocabulary_that_was_resized(tmp_path: Path, is_tied: bool) -> None:
    """Three tokens were added before tuning: 265 rows, which is no multiple of anything."""
    model = build_model(TinyShape(num_hidden_layers=1, tie_word_embeddings=is_tied))
    model.resize_token_embeddings(265, mean_resizing=False)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", model)
    tokenizer = build_tokenizer()
    assert tokenizer.add_tokens(["<|new|>", "<|more|>", "<|most|>"]) == 3
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    export(ExportOptions(checkpoint, tmp_path / "out", quant="none", verify="none"))
    if is_tied:  # the embedding in int4, gathered and multiplied
        export(ExportOptions(checkpoint, tmp_path / "int4", method="rtn", verify="full"))
    ids = np.array([[257, 258, 262, 72, 264, 263]])
    with torch.inference_mode():
        logits = model(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(PlainGraph(tmp_path / "out").run(ids), logits, atol=1e-4)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.model.vocab_size == manifest.model.tokenizer_vocab_size == 265
    assert glm_runtime.load(tmp_path / "out").tokenizer.encode("<|most|>") == [264]


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize(
    ("in_config", "in_generation", "expected"),
    [
        ([256, 258], 259, (259,)),  # trainers write one id, and it is meant
        ([256, 258], [258, 259], (258, 259)),
        (256, None, (256,)),
        ([256, 258], None, (256, 258)),
        (None, [257], (257,)),
    ],
)
def test_ends_after_tuning(
    tmp_path: Path, in_config: object, in_generation: object, expected: tuple[int, ...]
) -> None:
    """generation_config.json comes first, as in transformers."""
    checkpoint = write_small(tmp_path / "checkpoint")
    edit_config(checkpoint, eos_token_id=in_config)
    if in_generation is not None:
        write_json(checkpoint / "generation_config.json", {"eos_token_id": in_generation})
    export(ExportOptions(checkpoint, tmp_path / "out", quant="none", verify="none"))
    assert read_manifest(tmp_path / "out").model.eos_token_ids == expected
    for name in ("generation_config.json", "genai_config.json"):
        content = json.loads((tmp_path / "out" / name).read_text(encoding="utf-8"))
        assert content.get("model", content)["eos_token_id"] == list(expected)
