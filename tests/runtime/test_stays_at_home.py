"""ONNX Runtime's telemetry keeps an id of the device and its events at home; ours has none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.tiny_folder import build_tiny_folder

_LOAD = "import sys, glm_runtime; glm_runtime.load(sys.argv[1], device='cpu')"


def run(code: str, folder: Path, home: Path) -> list[Path]:
    """What a program leaves in a home of its own."""
    dropped = ("ORT_", "XDG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    environment = {**kept, "HOME": str(home)}
    command = [sys.executable, "-c", code, str(folder)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere homes are found otherwise")
def test_nothing_is_left_at_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert run(_LOAD, build_tiny_folder(tmp_path / "folder"), home) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere homes are found otherwise")
def test_it_would_be(tmp_path: Path) -> None:
    """The library alone does leave something, so that the test above can fail."""
    home = tmp_path / "home"
    home.mkdir()
    folder = build_tiny_folder(tmp_path / "folder")
    code = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1] + '/model.onnx')"
    if not run(code, folder, home):
        pytest.skip("this build of onnxruntime has no telemetry")
