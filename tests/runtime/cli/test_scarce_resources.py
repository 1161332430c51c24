"""Without disk, threads or memory: one sentence, an exit code, and nothing left behind."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import finish, run_command, start

SHORT = ("--prompt", "a", "--max-new-tokens", "2")
# Keeps the right to read files: Python itself may be in root's folder.
WITHOUT_THREADS = (
    *("setpriv", "--reuid=65533", "--clear-groups"),
    *("--inh-caps=+dac_override", "--ambient-caps=+dac_override", "prlimit"),
)
RUN = "from glm_programs import run_runtime as main; main()"


@pytest.fixture
def public_place() -> Iterator[Path]:
    """A folder that every user may read; pytest's own belong to its user alone."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


def run_into(stream: str, *arguments: object) -> tuple[int, str]:
    """Exit code and stderr of `glm-run` whose standard output is a full disk."""
    before = f"import os; os.dup2(os.open({stream!r}, os.O_WRONLY), 1)"
    code, _, said = run_command("glm-run", *arguments, before=before)
    return code, said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["generate", "info", "--help", "--version"])
def test_a_full_disk_behind_standard_output(tiny_folder: Path, name: str) -> None:
    """`--help` once ended in a traceback."""
    arguments = {"generate": (tiny_folder, *SHORT), "info": (tiny_folder,)}.get(name, ())
    code, said = run_into("/dev/full", name, *arguments)
    assert code == 1
    assert "No space left on device" in said and "Traceback" not in said
    assert said.splitlines()[-1].startswith("Error: the system refused")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user with a limit")
@pytest.mark.parametrize("processes", [1, 2])
def test_no_more_threads(tiny_folder: Path, public_place: Path, processes: int) -> None:
    """Python and ONNX Runtime fail in different ways; both blamed the program or the folder."""
    folder = Path(shutil.copytree(tiny_folder, public_place / "tiny"))
    limit = [*WITHOUT_THREADS, f"--nproc={processes}", sys.executable, "-c", RUN]
    command = [*limit, "generate", str(folder), *SHORT, "--threads", "2"]
    code, _, said = finish(start(command))
    if "setpriv" in said:
        pytest.skip("this container does not let root become another user")
    assert code == 1, said
    assert "raise the limit of processes (`ulimit -u`)" in said, said
    assert "Traceback" not in said


def test_no_memory_while_a_program_is_imported() -> None:
    """It ended in a traceback of Python's import system."""
    before = (
        "import sys\nclass Full:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'glm_runtime.cli': raise MemoryError\n"
        "sys.meta_path.insert(0, Full())"
    )
    code, _, said = run_command("glm-run", "--version", before=before)
    assert (code, said) == (1, "Error: the memory is used up; close other programs.\n")
