"""The npm packages in folders of other languages: installed once, tested by node's test runner."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.commands import finish

OLDEST = 20
_PROBE = "onnxruntime-common@1.30.0"
_WITHOUT_REGISTRY = "needs npm's registry"


def install(package: Path) -> Path:
    """Install what the `package-lock.json` of a package names, unless it is installed already.

    The test is skipped where node, npm or npm's registry is missing.
    """
    require_node()
    lock, stamp = package / "package-lock.json", package / "node_modules" / ".installed-lock.json"
    with _locked(package):
        if stamp.is_file() and stamp.read_bytes() == lock.read_bytes():
            return package
        require_registry()
        done = run(["npm", "ci", "--no-audit", "--no-fund"], package)
        assert done.returncode == 0, done.stderr
        shutil.copyfile(lock, stamp)
    return package


def require_node() -> None:
    """Skip the test where node, in the oldest version that we support, or npm is missing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    shown = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(shown.removeprefix("v").split(".")[0]) < OLDEST:
        pytest.skip(f"needs node {OLDEST} or later; this is {shown.strip()}")


def require_registry() -> None:
    """Skip the test where npm's registry cannot be reached."""
    probe = ["npm", "view", "--fetch-retries=0", _PROBE, "version"]
    if run(probe, Path.cwd()).returncode:
        pytest.skip(_WITHOUT_REGISTRY)


def run_tests(package: Path, name: str, environment: Mapping[str, str]) -> None:
    """Run `test/NAME.test.js` with node's test runner; a skipped test in it skips the whole."""
    files = sorted(str(path) for path in (package / "test").glob(f"{name}.test.js"))
    assert files
    command = ["node", "--test", "--test-concurrency=1", "--test-reporter=tap", *files]
    done = run(command, package, environment)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    assert "# fail 0" in done.stdout, done.stdout[-2000:]
    skipped = [
        line.partition("# SKIP ")[2] for line in done.stdout.splitlines() if "# SKIP" in line
    ]
    if skipped:
        pytest.skip("; ".join(sorted(set(skipped))))


def run(
    command: Sequence[str],
    folder: Path,
    added: Mapping[str, str] | None = None,
    typed: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with more environment variables and text for its stdin."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **(added or {})},
        stdin=subprocess.DEVNULL if typed is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    if typed is not None:
        assert process.stdin is not None
        process.stdin.write(typed)
        process.stdin.close()
        process.stdin = None
    return subprocess.CompletedProcess(command, *finish(process))


@contextmanager
def _locked(package: Path) -> Iterator[None]:
    """Let one process at a time install a package: pytest may run several workers."""
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:  # Windows, where the tests run in one process
        yield
        return
    with (package / "package.json").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
