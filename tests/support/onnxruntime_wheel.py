"""ONNX Runtime's library for another system, from its Python wheel."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

_CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
_FOLDER = "onnxruntime/capi/"


def read_pinned_version() -> str:
    """The version of onnxruntime that everything is tested with."""
    text = _CONSTRAINTS.read_text(encoding="utf-8")
    match = re.search(r"^onnxruntime==(.+)$", text, re.MULTILINE)
    assert match is not None
    return match[1]


def fetch_library(
    cache: Path, platforms: Sequence[str], name: str, version: str | None = None
) -> Path:
    """The library, fetched once; skips where no index can be reached.

    Args:
        cache: folder that stays.
        platforms: tags of wheels that will do.
        name: how the library's name begins.
        version: without, the pinned one.
    """
    version = version or read_pinned_version()
    folder = cache / version / platforms[0]
    if not folder.is_dir():
        tags = [word for tag in platforms for word in ("--platform", tag)]
        wanted = ["--only-binary=:all:", "--python-version", "3.11", *tags]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *wanted]
        command = [*pip, "--dest", str(folder), f"onnxruntime=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()[-1:]
            pytest.skip(f"onnxruntime {version} for {platforms[0]} cannot be fetched: {reason}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        (member,) = [path for path in wheel.namelist() if path.startswith(_FOLDER + name)]
        if not (folder / member).is_file():
            wheel.extract(member, folder)
    return folder / member
