"""JSON files of a checkpoint: a byte order mark is accepted, and what else lies there is said."""

import json
import os
import sys
from pathlib import Path

import pytest

from glm_export import ExportOptions, export
from glm_export.checkpoint.checkpoint import open_checkpoint
from glm_export.checkpoint.json_files import read_json
from glm_export.errors import CheckpointError
from support.broken_checkpoints import WEIGHTS, write_small, write_torch
from support.refusals import assert_sentence

BOM = b"\xef\xbb\xbf"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
PAGE = b"\n<!DOCTYPE html><html></html>"


def refuse(path: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_json(path)
    assert_sentence(str(caught.value), path.name, *words)


@pytest.mark.usefixtures("no_graph")
def test_byte_order_marks_do_no_harm(tmp_path: Path) -> None:
    """Editors on Windows write them; config.json was to be downloaded again."""
    checkpoint = write_small(tmp_path / "checkpoint")
    (checkpoint / "generation_config.json").write_text("{}")
    names = [path.name for path in checkpoint.glob("*.json")]
    assert len(names) == 4
    for name in names:
        path = checkpoint / name
        path.write_bytes(BOM + path.read_bytes())
    export(ExportOptions(checkpoint, tmp_path / "out", quant="none", verify="none"))
    for name in names:
        json.loads((tmp_path / "out" / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "(the file is empty)"),
        (b" \n", "(the file is empty)"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16 and not UTF-8"),
        (POINTER, "a git-lfs pointer: the content was not downloaded"),
        (PAGE, "a web page"),
        (b'{"a": 1', "delimiter"),
        (b'{"a": "\xe4"}', "can't decode byte"),
    ],
)
def test_what_lies_there_is_said(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    refuse(path, "is not readable JSON (", word, "correct it, or download it again")


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    refuse(tmp_path / "config.json", "cannot be read (Is a directory)", "that you may read")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are those of POSIX")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """Root may read everything, so another user tries; it was to be downloaded again."""
    path = tmp_path / "config.json"
    path.write_text("{}")
    path.chmod(0)
    if os.getuid() != 0:
        refuse(path, "cannot be read (Permission denied)", "that you may read")
        return
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.chdir(tmp_path)  # below folders of root's alone
        os.setuid(65534)
        message = "nothing was refused"
        try:
            read_json(Path("config.json"))
        except BaseException as error:
            message = str(error)
        os.write(writer, message.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        assert_sentence(answer.read(), "cannot be read (Permission denied)", "that you may read")


@pytest.mark.parametrize(
    ("content", "word"),
    [(POINTER, "a git-lfs pointer"), (PAGE, "a web page"), (b"GGUF" + bytes(60), "a GGUF file")],
)
def test_other_files_in_place_of_the_weights(tmp_path: Path, content: bytes, word: str) -> None:
    folder = write_small(tmp_path / "checkpoint")
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert_sentence(str(caught.value), "no whole safetensors header", word)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "pytorch_model.bin"])
def test_pointers_in_place_of_other_large_files(tmp_path: Path, name: str) -> None:
    """`git clone` without git-lfs; the sentences were about JSON, SentencePiece and PyTorch."""
    folder = write_small(tmp_path / "checkpoint")
    (folder / (WEIGHTS if name.endswith(".bin") else "tokenizer.json")).unlink()
    (folder / name).write_bytes(POINTER)
    with pytest.raises(CheckpointError) as caught:
        export(ExportOptions(folder, tmp_path / "out"))
    assert_sentence(str(caught.value), f"{name} is not a", "a git-lfs pointer", "download it again")


def test_safetensors_under_the_name_of_a_file_of_torch(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"not a zip file.*it is a safetensors file"):
        open_checkpoint(folder)


def test_a_file_of_torch_under_the_name_of_safetensors(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    write_torch(folder / WEIGHTS, {})
    with pytest.raises(CheckpointError, match=r"as torch.save writes a pytorch_model.bin"):
        open_checkpoint(folder)
