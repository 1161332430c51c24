"""A checkpoint file that is replaced during an export, as a second download or a training run does.

Once the folder's manifest named the old file while its weights were the new one's.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from glm_export import ExportOptions, export
from glm_export.errors import CheckpointError
from glm_export.evaluation import evaluate as evaluation
from glm_export.evaluation.inputs import EvaluationOptions
from glm_export.preparation import fingerprint_export, prepare_job
from support.broken_checkpoints import WEIGHTS, random_tensors, write_safetensors, write_small
from support.refusals import assert_sentence

Change = Callable[[Path], object]
PIPE_NAME = "additional_chat_templates/rag.jinja"


@pytest.fixture
def root(tmp_path: Path, no_graph: None) -> Path:
    write_small(tmp_path / "checkpoint")
    return tmp_path


def replace(path: Path) -> None:
    """A file of the same size and time takes its place, as `rsync --times` and `mv` do."""
    status = path.stat()
    other = path.with_name("other.tmp")
    write_safetensors(other, random_tensors(seed=1))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_size == status.st_size


def rewrite(path: Path) -> None:
    """The file keeps its inode and gets another content, as `cp` does."""
    content = bytearray(path.read_bytes())
    content[-4:] = b"\x00\x00\x80\x3f"
    path.write_bytes(content)


def change_at(stage: str, change: Change, path: Path) -> Callable[[str, int, int], None]:
    """A progress function that changes a file when a stage starts."""
    waiting = [path]

    def progress(name: str, _done: int, _total: int) -> None:
        if name.startswith(stage) and waiting:
            change(waiting.pop())

    return progress


@pytest.mark.parametrize("change", [replace, rewrite])
@pytest.mark.parametrize("stage", ["tracing", "writing", "verifying", "describing"])
@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_replaced_weights_are_refused(root: Path, stage: str, change: Change, method: str) -> None:
    options = ExportOptions(
        root / "checkpoint", root / "new", method=method, verify="tensors", calibration_tokens=64
    )
    path = root / "checkpoint" / WEIGHTS
    with pytest.raises(CheckpointError, match=r"model\.safetensors was changed while") as caught:
        export(options, change_at(stage, change, path))
    assert_sentence(str(caught.value))
    assert [one.name for one in root.iterdir()] == ["checkpoint"]  # no folder, no unfinished work


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        ("tokenizer.json", lambda path: path.write_text(path.read_text() + " "), "changed"),
        ("chat_template.jinja", Path.unlink, "removed"),
        ("generation_config.json", lambda path: path.write_text("{}"), "added"),
        ("config.json", Path.touch, "changed"),
    ],
)
def test_small_files_are_watched_too(root: Path, name: str, change: Change, found: str) -> None:
    options = ExportOptions(root / "checkpoint", root / "new", method="rtn", verify="tensors")
    with pytest.raises(CheckpointError, match=f"{name} was {found} while"):
        export(options, change_at("verifying", change, root / "checkpoint" / name))
    assert [one.name for one in root.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda path: path.write_text("{{ tools }}"), "changed"),
        (Path.unlink, "removed"),
        (lambda path: path.with_name("rag.jinja").write_text("{{ messages }}"), "added"),
    ],
)
def test_the_folder_of_templates_is_watched(root: Path, change: Change, found: str) -> None:
    path = root / "checkpoint" / "additional_chat_templates" / "tool_use.jinja"
    path.parent.mkdir()
    path.write_text("{{ tools | tojson }}")
    options = ExportOptions(root / "checkpoint", root / "new", method="rtn", verify="tensors")
    with pytest.raises(CheckpointError, match=rf"\w+\.jinja was {found} while"):
        export(options, change_at("verifying", change, path))
    path.write_text("{{ tools | tojson }}")
    path.with_name("rag.jinja").unlink(missing_ok=True)
    export(options)
    files = json.loads((root / "new" / "glm_manifest.json").read_text())["source"]["files"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert files["additional_chat_templates/tool_use.jinja"]["sha256"] == digest


def test_other_files_may_change(root: Path) -> None:
    """A log beside the weights, and files of a running training."""
    log = root / "checkpoint" / "training.log"
    options = ExportOptions(root / "checkpoint", root / "new", method="rtn", verify="tensors")
    export(options, change_at("verifying", lambda path: path.write_text("step 1"), log))
    assert (root / "new" / "glm_manifest.json").is_file()


def test_kept_work_is_not_continued_from_another_file(root: Path) -> None:
    """The other file may have the same size and time; only the inode tells them apart."""
    options = ExportOptions(root / "checkpoint", root / "new", method="rtn", verify="tensors")
    first = fingerprint_export(prepare_job(options))
    assert first == fingerprint_export(prepare_job(options))
    replace(root / "checkpoint" / WEIGHTS)
    assert first != fingerprint_export(prepare_job(options))


def test_evaluation_refuses_a_mixture(tmp_path: Path) -> None:
    """`glm-eval` reads the layers one by one for minutes."""
    checkpoint = write_small(tmp_path / "checkpoint")
    folder = tmp_path / "folder"
    export(ExportOptions(checkpoint, folder, quant="none", verify="tensors"))
    text = tmp_path / "text.txt"
    text.write_text("a text that is long enough to be read " * 4)
    options = EvaluationOptions(checkpoint, (folder,), text, 16, 64)
    progress = change_at("running the original", replace, checkpoint / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"model\.safetensors was changed while"):
        evaluation.evaluate(options, progress)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer.json", "LICENSE", PIPE_NAME])
def test_a_pipe_in_place_of_a_file(root: Path, name: str) -> None:
    """It once waited for someone to write into it."""
    path = root / "checkpoint" / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match=f"{path.name} is a pipe or a device where a file"):
        export(ExportOptions(root / "checkpoint", root / "new", method="rtn"))
