"""ONNX Runtime's library and licenses for any system, from its Python wheel."""

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

_CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
_LIBRARY_FOLDER = "onnxruntime/capi/"
LICENSES = ("onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt")


class WheelError(Exception):
    """pip cannot fetch the wheel."""


def read_pinned_version() -> str:
    """The version of onnxruntime that everything is tested with."""
    text = _CONSTRAINTS.read_text(encoding="utf-8")
    match = re.search(r"^onnxruntime==(.+)$", text, re.MULTILINE)
    assert match is not None
    return match[1]


def fetch_library(
    cache: Path, platforms: Sequence[str], name: str, version: str | None = None
) -> Path:
    """The library, with the licenses in the folder above its own; pip downloads a wheel once.

    Args:
        cache: folder that stays.
        platforms: tags of wheels that will do.
        name: how the library's name begins.
        version: without it, the pinned one.

    Raises:
        WheelError: pip found no such wheel, or no index.
    """
    version = version or read_pinned_version()
    folder = cache / version / platforms[0]
    if not list(folder.glob("*.whl")):
        tags = [word for tag in platforms for word in ("--platform", tag)]
        wanted = ["--only-binary=:all:", "--python-version", "3.11", *tags]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *wanted]
        command = [*pip, "--dest", str(folder), f"onnxruntime=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()[-1:]
            raise WheelError(f"onnxruntime {version} for {platforms[0]}: pip says {reason}")
    with (
        zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel,
        tempfile.TemporaryDirectory(dir=folder) as fresh,
    ):
        (member,) = [path for path in wheel.namelist() if path.startswith(_LIBRARY_FOLDER + name)]
        for path in (member, *LICENSES):
            if not (folder / path).is_file():
                whole = Path(wheel.extract(path, fresh))
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                whole.replace(folder / path)
    return folder / member
