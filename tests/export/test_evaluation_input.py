"""What `glm-eval` refuses: texts, folders and checkpoints whose figures would mean nothing."""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from glm_export import ExportError, ExportOptions, evaluate_cli, export
from glm_export.errors import CheckpointError, OptionsError, OutputError, VerificationError
from glm_export.evaluation.evaluate import EvaluationOptions, evaluate
from glm_export.graph.logits_session import GraphSession
from glm_export.model.layer_stream import LayerStream
from glm_runtime.errors import FolderError, FormatVersionError
from glm_runtime.folder.manifest import Manifest, describe_file, read_manifest, write_manifest
from glm_runtime.progress import ignore_progress
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


def evaluate_in(root: Path, *others: str, has_layers: bool = False) -> None:
    folders = tuple(root / name for name in ("folder", *others))
    options = EvaluationOptions(
        root / "checkpoint", folders, root / "text.txt", window=16, has_layers=has_layers
    )
    evaluate(options, ignore_progress)


def refuse(root: Path, kind: type[Exception], *words: str, others: Sequence[str] = ()) -> None:
    with nothing_left_behind(root), pytest.raises(kind) as caught:
        evaluate_in(root, *others)
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
    (root / "folder" / "glm_manifest.json").unlink()
    (root / "folder" / "glm_manifest.json").mkdir()
    refuse(root, FolderError, "glm_manifest.json is not a regular file", "export the folder again")


def test_a_folder_of_a_newer_format(root: Path) -> None:
    edit_json(root / "folder" / "glm_manifest.json", format_version=99)
    refuse(root, FormatVersionError, "format_version 99", "upgrade it")


def test_a_folder_of_another_model(root: Path) -> None:
    edit_config(root / "checkpoint", max_position_embeddings=128)
    words = (
        "context_length=64 but the checkpoint has 128",
        "give the checkpoint from which the folder",
    )
    refuse(root, OptionsError, *words)
    rows = from_array(np.zeros((352, 64), np.float32))
    edit_config(root / "checkpoint", vocab_size=352)
    replace_tensors(
        root / "checkpoint", add={"model.embed_tokens.weight": rows, "lm_head.weight": rows}
    )
    refuse(root, OptionsError, "vocab_size=320 but the checkpoint has 352")


def test_a_graph_that_onnx_runtime_refuses(root: Path) -> None:
    """Its manifest agrees with it, as if a later version had written what this one cannot run."""
    (root / "folder" / "model.onnx").write_bytes(b"no graph")
    seal(root / "folder", "model.onnx")
    words = (f"in {root / 'folder'}, ONNX Runtime", "cannot load the graph", "install the version")
    refuse(root, OutputError, *words)


def test_a_graph_that_fails_while_it_runs(exported: Path) -> None:
    """More tokens than the rotation tables have rows."""
    session = GraphSession(exported / "folder")
    with pytest.raises(OutputError) as caught:
        session.compute_logits(np.ones((1, 65), np.int64))
    assert_sentence(str(caught.value), "ONNX Runtime fails on 1 x 65 tokens (", "free memory")


def seal(folder: Path, name: str) -> None:
    """Make the manifest agree with a file that a test has changed."""
    manifest = read_manifest(folder)
    files = {**manifest.files, name: describe_file(folder / name)}
    write_manifest(folder, Manifest(**{**vars(manifest), "files": files}))


# --- several folders


@pytest.mark.parametrize("again", ["folder", "./folder", "link", "other/../folder"])
def test_a_folder_that_is_given_twice(root: Path, again: str) -> None:
    (root / "other").mkdir()
    (root / "link").symlink_to("folder")
    words = (f"{root / again} is the same folder as {root / 'folder'}", "give each folder once")
    refuse(root, OptionsError, *words, others=[again])


def test_no_folder_at_all(root: Path) -> None:
    with pytest.raises(OptionsError) as caught:
        EvaluationOptions(root / "checkpoint", ())
    assert_sentence(str(caught.value), "there is no folder to compare", "give at least one")


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (shutil.rmtree, FolderError, ("second is not a folder",)),
        (lambda f: (f / "model.onnx").unlink(), VerificationError, ("second, model.onnx is miss",)),
        (
            lambda f: edit_json(f / "glm_manifest.json", format_version=99),
            FormatVersionError,
            ("format_version 99",),
        ),
    ],
)
def test_the_last_folder_is_checked_before_the_original_runs(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], object],
    kind: type[Exception],
    words: tuple[str, ...],
) -> None:
    shutil.copytree(root / "folder", root / "second")
    damage(root / "second")
    monkeypatch.delattr(LayerStream, "run")  # whoever asks for them fails
    refuse(root, kind, *words, others=["second"])


def test_folders_that_read_the_text_differently(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(LayerStream, "run")
    shutil.copytree(root / "folder", root / "second")
    swap_ids(root / "second", "g", "h")  # "In the beg|inning"
    words = (
        "from token 4 on,",
        "second tokenizes the text differently from",
        "folder;",
        "give folders",
    )
    refuse(root, OptionsError, *words, others=["second"])


def test_folders_whose_tokenizers_differ_where_the_text_has_nothing(root: Path) -> None:
    shutil.copytree(root / "folder", root / "second")
    swap_ids(root / "second", "X", "Y")
    evaluate_in(root, "second")


def swap_ids(folder: Path, one: str, other: str) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocab = content["model"]["vocab"]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    path.write_text(json.dumps(content), encoding="utf-8")
    seal(folder, path.name)


# --- graphs whose layers are asked for


def refuse_layers(root: Path, *words: str) -> None:
    with nothing_left_behind(root), pytest.raises(VerificationError) as caught:
        evaluate_in(root, has_layers=True)
    assert_sentence(str(caught.value), *words)


def test_a_graph_that_cannot_be_read(root: Path) -> None:
    (root / "folder" / "model.onnx").write_bytes(b"no graph")
    seal(root / "folder", "model.onnx")
    refuse_layers(root, f"the graph of {root / 'folder'} cannot be read (", "export it again")


@pytest.mark.parametrize("name", ["layers.0.input_layernorm.weight", "norm.weight"])
def test_a_graph_without_our_names(root: Path, name: str) -> None:
    path = root / "folder" / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.name = "other" if tensor.name == name else tensor.name
    for node in model.graph.node:
        node.input[:] = ["other" if source == name else source for source in node.input]
    onnx.save(model, path)
    seal(root / "folder", "model.onnx")
    evaluate_in(root)  # as sound as before
    refuse_layers(root, f"has no norm with {name}, which", "leave the layers out")


def test_an_original_whose_error_has_no_measure(root: Path) -> None:
    rows = from_array(np.zeros((320, 64), np.float32))
    replace_tensors(root / "checkpoint", add={"model.embed_tokens.weight": rows})
    words = (f"in {root / 'folder'}, layer error 0 is inf", "check that the checkpoint's")
    refuse_layers(root, *words)


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
            CheckpointError,
            "model.norm.weight, rows 0-64 have NaN or Inf",
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


@pytest.mark.parametrize(("option", "value"), [("--window", "1"), ("--max-tokens", "0")])
def test_a_number_is_refused_before_pytorch_is_imported(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
) -> None:
    """It took four seconds."""
    monkeypatch.setattr(evaluate_cli, "check_evaluation_inputs", None)  # whoever calls it fails
    assert run_command(root, monkeypatch, option, value) == 2
    assert f"'{option}': {value} is not in the range x>=2" in capsys.readouterr().err


def test_exit_codes_of_folders(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the runtime package raises is one sentence and a 1 here, too."""
    arguments = ("--text", str(root / "text.txt"), "--window", "16", "--json", "--quiet")
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
