"""Builds `runtime/cpp`, or says why it cannot be built here."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[2] / "runtime" / "cpp"
HEADER = "onnxruntime_c_api.h"
ROOT_VARIABLE = "ONNXRUNTIME_ROOT"  # a release of ONNX Runtime, or Debian's /usr
# The last is where `make onnxruntime-header` leaves it.
_PLACES = (Path("/usr"), Path("/usr/local"), SOURCE.parents[1] / ".onnxruntime" / "usr")


def build(folder: Path, *options: str, target: str = "all") -> Path:
    """Configure and build; skips the test where a tool or the header is missing."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    configure = ["cmake", "-S", str(SOURCE), "-B", str(folder), *_find_onnxruntime(), *options]
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
        pytest.skip(f"no {HEADER}: `make onnxruntime-header`, or set {ROOT_VARIABLE}")
    return includes[0].parent


def _find_onnxruntime() -> list[str]:
    """The header from the root or the system, the library from the root or else from Python's."""
    include, named = find_header(), os.environ.get(ROOT_VARIABLE)
    libraries = list(Path(named).glob("lib/libonnxruntime.so*")) if named else []
    spec = importlib.util.find_spec("onnxruntime")
    if not libraries and spec is not None and spec.origin is not None:
        libraries = sorted((Path(spec.origin).parent / "capi").glob("libonnxruntime.so*"))
    if not libraries:
        pytest.skip("there is no libonnxruntime.so")
    return [f"-DONNXRUNTIME_INCLUDE={include}", f"-DONNXRUNTIME_LIBRARY={libraries[0]}"]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
