"""Which weight files are read if several lie in a folder: those that transformers reads."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Glm4ForCausalLM

from glm_export import ExportOptions, evaluate_cli, export
from glm_export.checkpoint.checkpoint import open_checkpoint
from glm_export.checkpoint.source_model import open_source
from glm_export.errors import CheckpointError
from glm_export.evaluation.evaluate import EvaluationOptions, evaluate
from glm_runtime.folder.manifest import read_manifest
from glm_runtime.progress import ignore_progress
from support.broken_checkpoints import (
    INDEXES,
    WEIGHTS,
    edit_config,
    random_tensors,
    write_json,
    write_safetensors,
    write_small,
    write_torch,
)
from support.refusals import assert_sentence

NORM = "model.norm.weight"
TORCH = "pytorch_model.bin"
SHARD = "model-00001-of-00001.safetensors"
KINDS = ("single", "index", "bin", "bin index")


def write_weights(folder: Path, kind: str) -> None:
    """One of the four ways to store weights; the seed, and so every number, is its own."""
    tensors = random_tensors(10 + KINDS.index(kind))
    if kind == "single":
        write_safetensors(folder / WEIGHTS, tensors)
    elif kind == "bin":
        write_torch(folder / TORCH, tensors)
    else:
        suffix = "bin" if kind == "bin index" else "safetensors"
        shard = SHARD if suffix == "safetensors" else "pytorch_model-00001-of-00001.bin"
        (write_torch if suffix == "bin" else write_safetensors)(folder / shard, tensors)
        weight_map = dict.fromkeys(tensors, shard)
        write_json(folder / INDEXES[suffix], {"metadata": {}, "weight_map": weight_map})


@pytest.mark.parametrize(
    "kinds", [pair for n in (2, 4) for pair in itertools.combinations(KINDS, n)], ids="+".join
)
def test_the_files_are_those_that_transformers_reads(tmp_path: Path, kinds: tuple[str]) -> None:
    """A stale index beside a new model.safetensors won, silently."""
    folder = write_small(tmp_path / "checkpoint")
    (folder / WEIGHTS).unlink()
    for kind in kinds:
        write_weights(folder, kind)
    expected = Glm4ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    checkpoint = open_checkpoint(folder)
    np.testing.assert_array_equal(
        checkpoint.read(NORM), expected.state_dict()[NORM].numpy(), strict=True
    )
    lying = {path.name for path in folder.iterdir() if "model" in path.name}
    used = {path.name for path in checkpoint.weight_files}
    if checkpoint.files.index:
        used.add(checkpoint.files.index.name)
    assert {path.name for path in checkpoint.files.unused} == lying - used


@pytest.mark.usefixtures("no_graph")
def test_a_file_that_config_json_names(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    write_safetensors(folder / "consolidated.safetensors", random_tensors(5))
    edit_config(folder, transformers_weights="consolidated.safetensors")
    expected = Glm4ForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()[NORM]
    np.testing.assert_array_equal(open_checkpoint(folder).read(NORM), expected.numpy())
    export(ExportOptions(folder, tmp_path / "out", quant="none", verify="none"))
    assert "transformers_weights" not in json.loads((tmp_path / "out" / "config.json").read_text())


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("gone.safetensors", ("transformers_weights='gone.safetensors', which is missing",)),
        ("../a.safetensors", ("transformers_weights is in '../a.safetensors'", "outside its")),
        (3, ("transformers_weights is in 3, which is not a file name",)),
    ],
)
def test_a_named_file_that_is_none(tmp_path: Path, named: object, words: tuple[str, ...]) -> None:
    folder = write_small(tmp_path / "checkpoint")
    write_safetensors(tmp_path / "a.safetensors", random_tensors())
    edit_config(folder, transformers_weights=named)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert_sentence(str(caught.value), *words)


def test_what_trainers_save_beside_the_weights_is_no_weight_file(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    for name in ("training_args.bin", "optimizer.bin", "optimizer_1.bin", "scheduler.bin"):
        (folder / name).write_bytes(b"state")
    assert open_checkpoint(folder).files.unused == ()
    assert open_checkpoint(folder).files.note == ""


def test_a_name_that_would_clear_the_terminal(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    write_safetensors(folder / "evil\x1b[2J\n.safetensors", random_tensors())
    (note,) = open_source(folder).notes
    assert note.isprintable() and "evil" in note


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new single file beside an old index with its shard, and the folder exported from it."""
    root = tmp_path_factory.mktemp("stale")
    folder = write_small(root / "checkpoint")
    write_weights(folder, "index")
    export(ExportOptions(folder, root / "out", quant="none", verify="none"))
    (root / "text.txt").write_text("In the beginning was the Word.")
    return root


def test_the_report_names_what_was_not_used(stale: Path, tmp_path: Path) -> None:
    options = ExportOptions(
        stale / "checkpoint", tmp_path / "again", quant="none", verify="none", is_forced=True
    )
    note, *_ = export(options).notes
    assert_named(note)


def assert_named(note: str) -> None:
    for name in (SHARD, INDEXES["safetensors"]):
        assert name in note
    assert "were not used: the weights come from model.safetensors, in the order" in note


def test_provenance_names_the_files_that_were_read(stale: Path) -> None:
    source = read_manifest(stale / "out").source
    assert WEIGHTS in source.files
    assert not {SHARD, INDEXES["safetensors"]} & set(source.files)


def test_an_evaluation_reads_the_same_files(stale: Path) -> None:
    options = EvaluationOptions(
        stale / "checkpoint", (stale / "out",), stale / "text.txt", window=16
    )
    report = evaluate(options, ignore_progress)
    assert report.folders[0].comparison.kl_mean < 1e-6
    (note,) = report.notes
    assert_named(note)


@pytest.mark.parametrize("is_json", [False, True])
def test_the_command_says_so(
    stale: Path, capsys: pytest.CaptureFixture[str], is_json: bool
) -> None:
    arguments = [str(stale / "checkpoint"), str(stale / "out"), "--text", str(stale / "text.txt")]
    evaluate_cli.command(
        [*arguments, "--window", "16", *(["--json"] if is_json else [])], standalone_mode=False
    )
    out, err = capsys.readouterr()
    assert_named(json.loads(out)["notes"][0] if is_json else err)
