"""The output is there completely or not at all, and nothing is replaced unasked.

These are the rules of the folder alone; `test_interruption.py` breaks real exports.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from glm_export.errors import ExportError, OutputError
from glm_export.output.staged_folder import stage_folder
from support.refusals import assert_sentence, list_tree, nothing_left_behind

MANIFEST = "glm_manifest.json"


class DeliberateError(Exception):
    """Raised inside the staged folder."""


def fill(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    (folder / "model.onnx").write_text(text)


def write(
    target: Path,
    text: str = "new",
    *,
    is_forced: bool = False,
    then: Callable[[Path], object] = lambda _: None,
) -> None:
    """Stage and fill a folder; `then` is what goes wrong inside it."""
    with stage_folder(target, 0, is_forced=is_forced) as folder:
        fill(folder, text)
        then(folder)


def fail(error: type[BaseException]) -> Callable[[Path], object]:
    def raise_it(folder: Path) -> None:
        raise error("as it was")

    return raise_it


def make_ours(target: Path, text: str = "old") -> Path:
    target.mkdir(parents=True)
    fill(target, text)
    return target


def refuse(root: Path, target: Path, *words: str, is_forced: bool = False) -> None:
    with nothing_left_behind(root), pytest.raises(OutputError) as caught:
        write(target, is_forced=is_forced)
    assert_sentence(str(caught.value), *words)


# --- what is made


def test_a_new_folder_with_its_parents(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "out")
    assert list_tree(tmp_path) == {
        "a": None,
        "a/b": None,
        "a/b/out": None,
        f"a/b/out/{MANIFEST}": b"new",
        "a/b/out/model.onnx": b"new",
    }


def test_nothing_is_visible_before_the_end(tmp_path: Path) -> None:
    with stage_folder(tmp_path / "out", 0, is_forced=False) as folder:
        assert folder.name.startswith(".")
        assert folder.parent == tmp_path  # a sibling: renaming works within one file system
        assert not (tmp_path / "out").exists()
        fill(folder, "new")


def test_force_replaces_ours_as_a_whole(tmp_path: Path) -> None:
    target = make_ours(tmp_path / "out")
    (target / "left.over").write_text("old")
    write(target, is_forced=True)
    assert sorted(list_tree(tmp_path)) == ["out", f"out/{MANIFEST}", "out/model.onnx"]
    assert (target / MANIFEST).read_text() == "new"


def test_force_replaces_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", is_forced=True)
    assert (tmp_path / "out" / MANIFEST).read_text() == "new"


def test_a_link_keeps_leading_to_the_folder(tmp_path: Path) -> None:
    """Renaming would replace the link itself and leave the old weights where it led."""
    make_ours(tmp_path / "disk" / "out")
    (tmp_path / "link").symlink_to("disk/out")
    refuse(tmp_path, tmp_path / "link", "exists; choose another -o")
    write(tmp_path / "link", is_forced=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "out" / MANIFEST).read_text() == "new"
    assert len(list((tmp_path / "disk").iterdir())) == 1


def test_the_working_directory_as_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.` has no name to derive a sibling from, until it is resolved."""
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    write(Path(), is_forced=True)
    monkeypatch.chdir(tmp_path)
    assert sorted(list_tree(tmp_path)) == ["out", f"out/{MANIFEST}", "out/model.onnx"]


# --- what is refused


@pytest.mark.parametrize("kind", ["ours", "empty", "theirs", "file", "dangling link"])
def test_what_exists_is_kept_without_force(tmp_path: Path, kind: str) -> None:
    target = make_target(tmp_path / "out", kind)
    refuse(tmp_path, target, f"{target} exists", "choose another -o", "--force")


@pytest.mark.parametrize("kind", ["theirs", "file", "dangling link"])
def test_force_keeps_what_is_not_ours(tmp_path: Path, kind: str) -> None:
    target = make_target(tmp_path / "out", kind)
    words = (f"{target} is not a folder of glm-export", "--force will not", "remove it first")
    refuse(tmp_path, target, *words, is_forced=True)


def make_target(target: Path, kind: str) -> Path:
    if kind == "ours":
        return make_ours(target)
    if kind == "file":
        target.write_text("precious")
    elif kind == "dangling link":
        target.symlink_to("nowhere")
    else:
        target.mkdir()
    if kind == "theirs":
        (target / "thesis.txt").write_text("precious")
    return target


def test_a_mount_point_cannot_be_renamed() -> None:
    """Found before the export, not after an hour of it; the root folder is one everywhere."""
    with (
        pytest.raises(OutputError) as caught,
        stage_folder(Path("/"), 0, is_forced=True),
    ):
        raise AssertionError
    assert_sentence(str(caught.value), "/ is a mount point", "a folder inside it as -o")


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    """Permissions would not stop root; this does."""
    (tmp_path / "file").write_text("precious")
    for target in (tmp_path / "file" / "out", tmp_path / "file" / "deep" / "out"):
        refuse(tmp_path, target, f"{target} could not be written (", "choose another -o")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    refuse(tmp_path, tmp_path / "locked" / "out", "could not be written (", "Permission denied")


def test_a_name_that_the_system_refuses(tmp_path: Path) -> None:
    refuse(tmp_path, tmp_path / "new" / ("x" * 300), "could not be written (", "File name too long")


def test_too_little_disk_leaves_no_parents_either(tmp_path: Path) -> None:
    needed = shutil.disk_usage(tmp_path).free + (1 << 30)
    with (
        nothing_left_behind(tmp_path),
        pytest.raises(OutputError) as caught,
        stage_folder(tmp_path / "a" / "b" / "out", needed, is_forced=False),
    ):
        raise AssertionError
    words = ("GB free but the folder needs", f"{needed / 1e9 + 0.067:.1f} GB", "free disk space")
    assert_sentence(str(caught.value), *words)


def test_what_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(OutputError) as caught:
        write(target, then=lambda _: make_ours(target, "of another program"))
    assert_sentence(str(caught.value), f"{target} exists")
    assert (target / MANIFEST).read_text() == "of another program"
    assert len(list(tmp_path.iterdir())) == 1


# --- what fails on the way


@pytest.mark.parametrize("error", [DeliberateError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("is_forced", [False, True])
def test_a_failure_leaves_the_old_folder(
    tmp_path: Path, error: type[BaseException], is_forced: bool
) -> None:
    target = make_ours(tmp_path / "out") if is_forced else tmp_path / "new" / "out"
    with nothing_left_behind(tmp_path), pytest.raises(error):
        write(target, is_forced=is_forced, then=fail(error))


def test_errors_of_the_export_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="as it was"):
        write(tmp_path / "out", then=fail(ExportError))


def test_a_disk_that_fills_up_meanwhile(tmp_path: Path) -> None:
    """A real write beyond what the system allows, as when another program took the space."""

    def write_too_much(folder: Path) -> None:
        with limit_file_size(1000):
            (folder / "model.onnx").write_bytes(bytes(2000))

    with nothing_left_behind(tmp_path), pytest.raises(OutputError) as caught:
        write(tmp_path / "out", then=write_too_much)
    assert_sentence(str(caught.value), "out could not be written (", "File too large")


@contextmanager
def limit_file_size(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_an_interruption_between_the_two_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old folder is moved aside and the new one not yet in place: the old one comes back."""
    target = make_ours(tmp_path / "out")
    rename = Path.rename

    def interrupt(path: Path, to: Path) -> Path:
        if ".partial-" in path.name:
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", interrupt)
    with nothing_left_behind(tmp_path), pytest.raises(KeyboardInterrupt):
        write(target, is_forced=True)


# --- what killed runs left


@pytest.fixture
def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def running_process() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.kill()
    process.communicate()


@pytest.mark.parametrize("name", ["out", "GLM-4 [int4] *", "模型"])
def test_the_next_run_removes_leftovers(tmp_path: Path, dead_process: int, name: str) -> None:
    """Names are no patterns: brackets and stars once hid the leftovers from a glob."""
    make_ours(tmp_path / f".{name}.partial-{dead_process}")
    write(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_leftovers_go_even_if_the_run_is_refused(tmp_path: Path, dead_process: int) -> None:
    make_ours(tmp_path / f".out.partial-{dead_process}")
    make_ours(tmp_path / "out")
    with pytest.raises(OutputError, match="exists"):
        write(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_old_folder_that_was_moved_aside_comes_back(tmp_path: Path, dead_process: int) -> None:
    """Killed between the two renames. It comes back before it is asked whether one exists."""
    make_ours(tmp_path / f".out.old-{dead_process}")
    with pytest.raises(OutputError, match="exists; choose another"):
        write(tmp_path / "out")
    assert (tmp_path / "out" / MANIFEST).read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_old_folder_that_was_replaced_goes(tmp_path: Path, dead_process: int) -> None:
    make_ours(tmp_path / f".out.old-{dead_process}")
    make_ours(tmp_path / "out", "newer")
    write(tmp_path / "out", is_forced=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "name", [".out.partial-", ".out.partial-x1", ".out.backup-7", ".other.partial-7", "out.old-7"]
)
def test_siblings_of_others_stay(tmp_path: Path, name: str) -> None:
    make_ours(tmp_path / name)
    write(tmp_path / "out")
    assert (tmp_path / name / MANIFEST).read_text() == "old"


def test_a_running_export_is_left_alone(tmp_path: Path, running_process: int) -> None:
    make_ours(tmp_path / f".out.partial-{running_process}")
    found = f"process {running_process} is exporting to {tmp_path / 'out'} now"
    refuse(tmp_path, tmp_path / "out", found, "wait for it")
    write(tmp_path / "other")


def test_a_second_export_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with stage_folder(tmp_path / "out", 0, is_forced=False) as folder:
        fill(folder, "new")
        refuse(tmp_path, tmp_path / "out", f"process {os.getpid()} is exporting", "wait for it")
    assert (tmp_path / "out" / MANIFEST).read_text() == "new"


def test_a_process_that_inherited_the_number_is_no_export(
    tmp_path: Path, running_process: int
) -> None:
    """In containers small numbers come again at once; the leftover is older than the process."""
    leftover = make_ours(tmp_path / f".out.partial-{running_process}")
    os.utime(leftover, (1e9, 1e9))
    write(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_killed_process_that_nobody_waited_for_is_no_export(tmp_path: Path) -> None:
    """Where a container's first process collects no children, the dead stay listed."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    make_ours(tmp_path / f".out.partial-{process.pid}")
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    write(tmp_path / "out")
    process.communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_process_that_may_not_be_looked_at_counts_as_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(process: int) -> None:
        raise psutil.AccessDenied(process)

    (tmp_path / ".out.partial-1").mkdir()
    monkeypatch.setattr(psutil, "Process", deny)
    refuse(tmp_path, tmp_path / "out", "process 1 is exporting to", "wait for it")
