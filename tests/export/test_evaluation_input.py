"""What `glm-eval` refuses: texts, folders and checkpoints whose figures would mean nothing."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from glm_export import ExportError, ExportOptions, evaluate_cli, export
from glm_export.errors import CheckpointError, OptionsError, VerificationError
from glm_export.evaluate import EvaluationOptions, evaluate
from glm_export.graph_session import GraphSession
from glm_export.report import ignore_progress
from glm_runtime.errors import FolderError, FormatVersionError
from glm_runtime.manifest import Manifest, describe_file, read_manifest, write_manifest
from support.broken_checkpoints import (
    edit_config,
    edit_json,
    from_array,
    poison,
    replace_tensors,
    write_small,
)
from support.refusals import assert_sentence, nothing_left_behind

TEXT = "In the beginning was the Word. 太初有道。" * 3
FILES = (
    "README.md",
    "chat_template.jinja",
    "config.json",
    "genai_config.json",
    "generation_config.json",
    "glm_manifest.json",
    "model.onnx",
    "model.onnx.data",
    "tokenizer.json",
    "tokenizer_config.json",
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exported")
    export(ExportOptions(write_small(root / "checkpoint"), root / "folder"))
    return root


@pytest.fixture
def root(tmp_path: Path, exported: Path) -> Path:
    """`checkpoint`, the `folder` made of it, and a short text: copies that a test may damage."""
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


def evaluate_in(root: Path) -> None:
    paths = (root / "checkpoint", root / "folder", root / "text.txt")
    evaluate(EvaluationOptions(*paths, window=16), ignore_progress)


def refuse(root: Path, kind: type[Exception], *words: str) -> None:
    with nothing_left_behind(root), pytest.raises(kind) as caught:
        evaluate_in(root)
    assert caught.type is kind
    assert_sentence(str(caught.value), *words)


def test_the_sound_input_is_evaluated(root: Path) -> None:
    with nothing_left_behind(root):
        evaluate_in(root)


# --- the text


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, ("cannot be read (", "No such file", "give a UTF-8 file")),
        (lambda t: (t.unlink(), t.mkdir()), ("cannot be read (", "Is a directory")),
        (lambda t: t.write_bytes(b"abc \xff"), ("is not UTF-8 (", "position 4", "convert it")),
        (lambda t: t.write_bytes(TEXT.encode("utf-16")), ("is not UTF-8 (", "convert it")),
        (lambda t: t.write_text(""), ("the text has 0 tokens", "at least 2", "a longer one")),
        (lambda t: t.write_text("a"), ("the text has 1 tokens", "at least 2", "a longer one")),
    ],
)
def test_texts(root: Path, damage: Callable[[Path], object], words: tuple[str, ...]) -> None:
    damage(root / "text.txt")
    refuse(root, OptionsError, *words)


# --- the folder


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_in_any_file(root: Path, name: str) -> None:
    """The last one: in the manifest that leaves JSON with the same content."""
    path = root / "folder" / name
    content = bytearray(path.read_bytes())
    content[-1] = ord(" ") if content[-1] != ord(" ") else ord("\n")
    path.write_bytes(content)
    words = (f"in {root / 'folder'}, {name} was changed", "export it again")
    refuse(root, VerificationError, *words)


def test_all_files_were_tried(root: Path) -> None:
    assert sorted(path.name for path in (root / "folder").iterdir()) == sorted(FILES)


def test_a_missing_and_a_cut_file(root: Path) -> None:
    data = root / "folder" / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    refuse(root, VerificationError, "model.onnx.data has", "the manifest says", "export it again")
    data.unlink()
    refuse(root, VerificationError, "model.onnx.data is missing", "export it again")


def test_a_surplus_file_does_no_harm(root: Path) -> None:
    (root / "folder" / "notes.txt").write_text("mine")
    evaluate_in(root)


def test_no_folder(root: Path) -> None:
    (root / "folder").rename(root / "elsewhere")
    refuse(root, FolderError, "folder is not a folder", "give the folder that glm-export wrote")


def test_a_checkpoint_in_place_of_the_folder(root: Path) -> None:
    shutil.rmtree(root / "folder")
    shutil.copytree(root / "checkpoint", root / "folder")
    refuse(root, FolderError, "is a checkpoint, not an exported folder", "export it first")


def test_a_manifest_that_is_a_folder(root: Path) -> None:
    """Root may read everything, so a missing permission cannot be tried; this fails as it does."""
    (root / "folder" / "glm_manifest.json").unlink()
    (root / "folder" / "glm_manifest.json").mkdir()
    refuse(root, OptionsError, "folder cannot be read (", "Is a directory", "permissions")


def test_a_folder_of_a_newer_format(root: Path) -> None:
    edit_json(root / "folder" / "glm_manifest.json", format_version=99)
    refuse(root, FormatVersionError, "format_version 99", "upgrade it")


def test_a_folder_of_another_model(root: Path) -> None:
    edit_config(root / "checkpoint", max_position_embeddings=128)
    words = ("context_length=64 but the checkpoint 128", "give the checkpoint that the folder")
    refuse(root, OptionsError, *words)
    rows = from_array(np.zeros((352, 64), np.float32))
    edit_config(root / "checkpoint", vocab_size=352)
    replace_tensors(
        root / "checkpoint", add={"model.embed_tokens.weight": rows, "lm_head.weight": rows}
    )
    refuse(root, OptionsError, "vocab_size=320 but the checkpoint 352")


def test_a_graph_that_onnx_runtime_refuses(root: Path) -> None:
    """Its manifest agrees with it, as if a later version had written what this one cannot run."""
    path = root / "folder" / "model.onnx"
    path.write_bytes(b"no graph")
    manifest = read_manifest(root / "folder")
    files = {**manifest.files, path.name: describe_file(path)}
    values = {**vars(manifest), "files": files}
    write_manifest(root / "folder", Manifest(**values))
    refuse(root, VerificationError, "ONNX Runtime", "refuses the graph (", "install the version")


def test_a_graph_that_fails_while_it_runs(exported: Path) -> None:
    """More tokens than the rotation tables have rows."""
    session = GraphSession(exported / "folder")
    with pytest.raises(VerificationError) as caught:
        session.compute_logits(np.ones((1, 65), np.int64))
    assert_sentence(str(caught.value), "ONNX Runtime fails on 1 x 65 tokens (", "free memory")


# --- the checkpoint


@pytest.mark.parametrize(
    ("damage", "kind", "word"),
    [
        (shutil.rmtree, CheckpointError, "checkpoint is not a folder"),
        (lambda c: (c / "config.json").unlink(), CheckpointError, "no config.json"),
        (
            lambda c: replace_tensors(c, drop=["lm_head.weight"]),
            CheckpointError,
            "lm_head.weight [320, 64] is missing",
        ),
        (
            lambda c: poison(c, "model.norm.weight", float("nan")),
            VerificationError,
            "reference_perplexity came out as nan",
        ),
    ],
)
def test_checkpoints(
    root: Path, damage: Callable[[Path], object], kind: type[ExportError], word: str
) -> None:
    damage(root / "checkpoint")
    refuse(root, kind, word)


# --- the command


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--window", "1"], 2, "window is 1; choose 2 or more"),
        (["--max-tokens", "0"], 2, "max tokens is 0; choose 2 or more"),
        (["--text", "none.txt"], 2, "the text none.txt cannot be read ("),
    ],
)
def test_exit_codes(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    word: str,
) -> None:
    assert run_command(root, monkeypatch, *arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert_sentence(err.removesuffix("\n"), word)


def test_exit_codes_of_folders(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the runtime package raises is one sentence and a 1 here, too."""
    arguments = ("--text", str(root / "text.txt"), "--window", "16", "--json")
    assert run_command(root, monkeypatch, *arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert {"perplexity", "kl_mean", "kl_p99", "top1_agreement", "tokens"} <= set(json.loads(out))
    edit_json(root / "folder" / "glm_manifest.json", format_version=99)
    assert run_command(root, monkeypatch, *arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert_sentence(err.removesuffix("\n"), "Error: ", "format_version 99")


def run_command(root: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    paths = [str(root / "checkpoint"), str(root / "folder")]
    monkeypatch.setattr(sys, "argv", ["glm-eval", *paths, *arguments])
    with pytest.raises(SystemExit) as caught:
        evaluate_cli.main()
    return int(caught.value.code or 0)
