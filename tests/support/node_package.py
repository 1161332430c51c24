"""The Node package with what it needs, or why a test of it cannot run here."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "runtime" / "node"
_OLDEST = 20


def install_package() -> Path:
    """The package with what it needs, installed unless it is there already."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < _OLDEST:
        pytest.skip(f"needs node {_OLDEST} or later; this is {version.strip()}")
    lock, stamp = PACKAGE / "package-lock.json", PACKAGE / "node_modules" / ".installed-lock.json"
    if not stamp.is_file() or stamp.read_bytes() != lock.read_bytes():
        environment = {**os.environ, "ONNXRUNTIME_NODE_INSTALL": "skip"}
        done = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund", "--fetch-retries=0"],
            cwd=PACKAGE,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"npm ci failed: {done.stderr.strip().splitlines()[-1:]}")
        shutil.copyfile(lock, stamp)
    return PACKAGE
