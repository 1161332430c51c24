"""Builds `runtime/cpp`, by options or as its README says, or tells why it cannot be built here."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "runtime" / "cpp"
README, PAGE = SOURCE / "README.md", ROOT / "docs" / "cpp.md"
HEADER = "onnxruntime_c_api.h"
ROOT_VARIABLE = "ONNXRUNTIME_ROOT"  # a release of ONNX Runtime, or Debian's /usr
# The last is where `make onnxruntime-header` leaves it.
_PLACES = (Path("/usr"), Path("/usr/local"), ROOT / ".onnxruntime" / "usr")


def read_blocks(page: Path, language: str = "sh") -> list[str]:
    """The blocks of code on a page, in order."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def make_checkout(folder: Path) -> Path:
    """A copy of what the C++ build needs of this repository, with nothing built in it."""
    for name in ("runtime/cpp", "examples/c"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("export/glm_export/__init__.py", "LICENSE"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def build_as_documented(page: Path, word: str, checkout: Path, library: Path | None = None) -> str:
    """Run the page's block that has the word, beside the release of ONNX Runtime that it names.

    The library is Python's unless another one is given. Returns what was printed.
    """
    require_compiler()
    (block,) = (block for block in read_blocks(page) if word in block)
    (name,) = re.findall(r"ONNXRUNTIME_ROOT=\$PWD/(\S+)", block)
    include, found = find_header(), library or find_library()
    (checkout / name / "lib").mkdir(parents=True)
    (checkout / name / "include").symlink_to(include)
    link = found.name if found.suffix == ".dll" else "libonnxruntime.so"
    (checkout / name / "lib" / link).symlink_to(found)
    return run_block(checkout, block)


def run_block(checkout: Path, block: str) -> str:
    """Run shell commands with this Python as python3; returns what they print."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    command = ["bash", "-euo", "pipefail", "-c", block]
    done = subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def require_compiler() -> None:
    """Skip the test where a tool is missing."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: install Debian's packages cmake and g++")


def build(folder: Path, *options: str, target: str = "all") -> Path:
    """Configure and build; skips the test where a tool or the header is missing."""
    require_compiler()
    found = [f"-DONNXRUNTIME_INCLUDE={find_header()}", f"-DONNXRUNTIME_LIBRARY={find_library()}"]
    configure = ["cmake", "-S", str(SOURCE), "-B", str(folder), *found, *options]
    _run([*configure, f"-DPYTHON={sys.executable}"])
    jobs = str(os.cpu_count() or 1)
    _run(["cmake", "--build", str(folder), "--target", target, "--parallel", jobs])
    return folder


def find_fuzzing_clang() -> str | None:
    """A clang++ that has libFuzzer beside it; distributions give it a number."""
    for name in ("clang++", *(f"clang++-{number}" for number in range(30, 12, -1))):
        path = shutil.which(name)
        if path is None:
            continue
        asked = [path, "-fsanitize=fuzzer", "-x", "c++", "-", "-o", os.devnull]
        empty = 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }'
        done = subprocess.run(asked, input=empty.encode(), capture_output=True, check=False)
        if done.returncode == 0:
            return path
    return None


def run_program(built: Path, *arguments: object, **more: Any) -> "subprocess.CompletedProcess[str]":
    command = [str(built / "glm-run"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def find_header() -> Path:
    """The folder of ONNX Runtime's header; skips the test where there is none."""
    named = os.environ.get(ROOT_VARIABLE)
    roots = [Path(named)] if named else list(_PLACES)
    includes = [place for root in roots for place in (root / "include").glob(f"**/{HEADER}")]
    if not includes:
        pytest.skip(f"needs {HEADER}: run `make onnxruntime-header`, or set {ROOT_VARIABLE}")
    return includes[0].parent


def find_library() -> Path:
    """ONNX Runtime's library from the root or else from Python's package; skips without one."""
    named = os.environ.get(ROOT_VARIABLE)
    libraries = list(Path(named).glob("lib/libonnxruntime.so*")) if named else []
    spec = importlib.util.find_spec("onnxruntime")
    if not libraries and spec is not None and spec.origin is not None:
        libraries = sorted((Path(spec.origin).parent / "capi").glob("libonnxruntime.so*"))
    if not libraries:
        pytest.skip("needs libonnxruntime.so: install the Python package onnxruntime")
    return libraries[0]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
