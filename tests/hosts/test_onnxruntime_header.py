"""`onnxruntime_header.sh` of runtime/cpp gets the C header through apt, or says what to install."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "runtime" / "cpp" / "tools" / "onnxruntime_header.sh"
BASH = shutil.which("bash")


def run(folder: Path, path: str | None = None) -> "subprocess.CompletedProcess[str]":
    if BASH is None:
        pytest.skip("bash is not installed")
    environment = None if path is None else {"PATH": path}
    command = [BASH, str(SCRIPT), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_system_without_apt(tmp_path: Path) -> None:
    done = run(tmp_path / "header", path=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("There is no apt-get here. Install libonnxruntime-dev, or ")
    assert "ONNXRUNTIME_ROOT" in done.stderr
    assert not (tmp_path / "header").exists()


def test_no_suite_has_the_package(tmp_path: Path) -> None:
    """The system's apt is a program that finds nothing."""
    for tool in ("mkdir", "rm", "sed", "awk", "dpkg-deb"):
        found = shutil.which(tool)
        if found is None:
            pytest.skip(f"{tool} is not installed")
        (tmp_path / tool).symlink_to(found)
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    (tmp_path / "apt-get").chmod(0o755)
    done = run(tmp_path / "header", path=f"{tmp_path}:/bin")
    assert done.returncode == 1
    assert "apt has no libonnxruntime-dev in its own suites, nor in trixie forky." in done.stderr


@pytest.mark.exhaustive
def test_apt_has_it(tmp_path: Path) -> None:
    """And the lists and sources of the system stay as they are."""
    if shutil.which("apt-get") is None:
        pytest.skip("apt-get is not installed")
    lists = Path("/var/lib/apt/lists")
    before = sorted(path.name for path in lists.iterdir())
    done = run(tmp_path / "header")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "header" / "usr" / "include").rglob("onnxruntime_c_api.h"))) == 1
    assert sorted(path.name for path in lists.iterdir()) == before
