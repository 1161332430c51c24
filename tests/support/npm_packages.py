"""The packages in other languages' folders that npm installs, once, for the tests of them."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

OLDEST = 20
_PATIENCE_SECONDS = 1200


def install(package: Path) -> Path:
    """The package with what its `package-lock.json` names, installed unless it is there already.

    Skips the test where node, npm or a registry is missing.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < OLDEST:
        pytest.skip(f"needs node {OLDEST} or later; this is {version.strip()}")
    lock, stamp = package / "package-lock.json", package / "node_modules" / ".installed-lock.json"
    if stamp.is_file() and stamp.read_bytes() == lock.read_bytes():
        return package
    command = [npm, "ci", "--no-audit", "--no-fund", "--fetch-retries=0"]
    done = run(command, package, {"ONNXRUNTIME_NODE_INSTALL": "skip"})
    if done.returncode:
        pytest.skip(f"npm ci failed: {done.stderr.strip().splitlines()[-1:]}")
    shutil.copyfile(lock, stamp)
    return package


def run_tests(package: Path, name: str, environment: Mapping[str, str]) -> None:
    """Run `test/NAME.test.js` by node's own runner; what one of them lacks skips the whole."""
    files = sorted(str(path) for path in (package / "test").glob(f"{name}.test.js"))
    assert files
    done = run(["node", "--test", "--test-reporter=tap", *files], package, environment)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    assert "# fail 0" in done.stdout, done.stdout[-2000:]
    skipped = [
        line.partition("# SKIP ")[2] for line in done.stdout.splitlines() if "# SKIP" in line
    ]
    if skipped:
        pytest.skip("; ".join(sorted(set(skipped))))


def run(
    command: Sequence[str], folder: Path, added: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with some more environment variables; a hang ends it."""
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(added or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE_SECONDS,
    )
