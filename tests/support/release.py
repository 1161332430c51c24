"""What `make release` left in dist/: finds it, unpacks it, and runs it apart from this clone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"


def find(pattern: str) -> Path:
    """A file of dist/; skips the test where there is none."""
    found = sorted(DIST.glob(pattern))
    if not found:
        pytest.skip("nothing was built: make release")
    assert len(found) == 1, found
    return found[0]


def unpack(archive: Path, folder: Path) -> Path:
    """The archive's one folder; Python's own zipfile would drop links and permissions."""
    if shutil.which("unzip") is None:
        pytest.skip("unzip is not installed")
    run("unzip", "-q", archive, "-d", folder)
    (content,) = folder.iterdir()
    return content


def run(*command: object, cwd: Path | None = None, **variables: str) -> str:
    """The output of a command that sees nothing of this clone."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def make_environment(folder: Path, *requirements: object) -> Path:
    """The programs' folder of a fresh environment with these installed."""
    run(sys.executable, "-m", "venv", folder)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    constraints = ("-c", ROOT / "constraints.txt")
    run(programs / "python", "-m", "pip", "install", "--quiet", *constraints, *requirements)
    return programs
