"""Exports that are killed or interrupted: the old folder stays, and the next run just works.

`test_resume.py` looks at what the next run need not do again.
"""

import signal
import subprocess
from pathlib import Path

import pytest

import glm_export.pipeline
from glm_export import ExportOptions, export
from glm_export.errors import OutputError
from glm_runtime.folder.manifest import check_files, read_manifest
from support.broken_checkpoints import write_small
from support.commands import (
    ENTRY_POINTS,
    finish,
    run_command,
    start_command,
    start_python,
    stop,
    wait_for_sibling,
)
from support.refusals import assert_sentence, list_tree, nothing_left_behind

KILL_AT = """
import os, signal, sys
from pathlib import Path
from glm_export import ExportOptions, export
def progress(stage, done, total):
    if stage.startswith("describing"):
        os.kill(os.getpid(), signal.SIGKILL)
export(ExportOptions(Path(sys.argv[1]), Path(sys.argv[2]), method="rtn", is_forced=True), progress)
"""
# The empty line ends the terminal's own, which shows ^C.
INTERRUPTED = "\nInterrupted; nothing was changed.\n"
# Nothing is finished before the graph is traced.
WAIT_THERE = (
    "import signal, glm_export.pipeline\n"
    "glm_export.pipeline._write_graph = lambda *_: signal.pause()"
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a finished export."""
    root = tmp_path_factory.mktemp("exported")
    export(ExportOptions(write_small(root / "checkpoint"), root / "out", method="rtn"))
    return {path.name: path.read_bytes() for path in (root / "out").iterdir()}


@pytest.fixture
def root(tmp_path: Path, exported: dict[str, bytes]) -> Path:
    """A checkpoint, and an older export of another one with the same name: `out`."""
    write_small(tmp_path / "checkpoint", seed=1)
    (tmp_path / "out").mkdir()
    for name, content in exported.items():
        (tmp_path / "out" / name).write_bytes(content)
    return tmp_path


def list_names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def assert_next_run_works(root: Path) -> None:
    """It replaces the old folder, and the hidden sibling is gone."""
    before = (root / "out" / "model.onnx.data").read_bytes()
    export(ExportOptions(root / "checkpoint", root / "out", method="rtn", is_forced=True))
    assert list_names(root) == ["checkpoint", "out"]
    assert (root / "out" / "model.onnx.data").read_bytes() != before
    assert check_files(root / "out", read_manifest(root / "out"), is_full=True) == []


def test_sigkill_while_another_waits(root: Path) -> None:
    """Halted in mid-export, a second run is told to wait; killed, the next one cleans up."""
    old = list_tree(root / "out")
    arguments = (root / "checkpoint", "-o", root / "out", "--force", "--method", "rtn")
    process = start_command("glm-export", *arguments)
    sibling = wait_for_sibling(process, root / "out")
    stop(process)
    with nothing_left_behind(root), pytest.raises(OutputError) as caught:
        export(ExportOptions(root / "checkpoint", root / "out", method="rtn", is_forced=True))
    assert_sentence(str(caught.value), f"process {process.pid} is exporting to", "wait for it")
    process.kill()
    code, out, _ = finish(process)
    assert (code, out) == (-signal.SIGKILL, "")
    assert list_tree(root / "out") == old
    assert {sibling.name, "checkpoint", "out"} <= set(list_names(root))
    assert_next_run_works(root)


def test_sigkill_just_before_the_end(root: Path) -> None:
    """Everything is written, nothing is in place."""
    old = list_tree(root / "out")
    process = start_python(KILL_AT, root / "checkpoint", root / "out")
    assert finish(process)[0] == -signal.SIGKILL
    (sibling,) = root.glob(".out.partial-*")
    sizes = {(folder / "model.onnx.data").stat().st_size for folder in (sibling, root / "out")}
    assert len(sizes) == 1
    assert list_tree(root / "out") == old
    assert_next_run_works(root)


def interrupt(root: Path, output: Path, *options: str) -> subprocess.Popen[str]:
    arguments = (root / "checkpoint", "-o", output, "--method", "rtn", "--quiet", *options)
    process = start_command("glm-export", *arguments, before=WAIT_THERE)
    wait_for_sibling(process, output)
    process.send_signal(signal.SIGINT)
    return process


def test_ctrl_c_at_the_start_leaves_nothing(root: Path) -> None:
    with nothing_left_behind(root):
        process = interrupt(root, root / "new" / "folder")
        assert finish(process) == (130, "", INTERRUPTED)


def test_ctrl_c_leaves_the_old_folder(root: Path) -> None:
    with nothing_left_behind(root):
        process = interrupt(root, root / "out", "--force")
        assert finish(process) == (130, "", INTERRUPTED)


@pytest.mark.parametrize("stage", ["tracing", "writing", "verifying", "describing"])
def test_an_interruption_of_any_stage(
    root: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """In the library: the interrupt goes on to the caller; only what is finished stays."""
    monkeypatch.setattr(glm_export.pipeline, "_write_graph", lambda *_: {})
    reached = []

    def progress(name: str, done: int, total: int) -> None:
        reached.append(name)
        if name.startswith(stage):
            raise KeyboardInterrupt

    options = ExportOptions(
        root / "checkpoint", root / "out", method="rtn", is_forced=True, verify="none"
    )
    old = list_tree(root / "out")
    with pytest.raises(KeyboardInterrupt):
        export(options, progress)
    assert reached[-1].startswith(stage)
    kept = [".out.unfinished"] if stage in ("verifying", "describing") else []
    assert list_names(root) == [*kept, "checkpoint", "out"]
    assert list_tree(root / "out") == old


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_ctrl_c_while_python_imports(name: str) -> None:
    """Somebody saw a typing error at once; half a second later the command itself would answer."""
    before = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, *rest):
        if name == "numpy":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
"""
    assert run_command(name, "--version", before=before) == (130, "", "\nInterrupted.\n")
    assert run_command(name, "--version")[0] == 0
