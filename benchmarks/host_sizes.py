"""Bytes that a host ships besides the exported folder, as they lie on this machine's disk."""

import importlib.metadata
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import glm_runtime

_NODE_PACKAGES = (
    "onnxruntime-node",
    "onnxruntime-common",
    "@huggingface/jinja",
    "@huggingface/tokenizers",
)

_OTHER_BUILD = re.compile(r"asyncify|webgpu|LEGAL")


def count_our_bytes() -> int:
    """The package `glm_runtime`."""
    return sum(_count(Path(glm_runtime.__file__).parent.rglob("*.py")))


def count_python_bytes(names: Sequence[str]) -> int:
    """Installed files of these packages and what they require, without Python itself."""
    wanted, seen = list(names), set[str]()
    total = 0
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # required on another system only
        total += sum(_count(Path(str(file.locate())) for file in package.files or []))
        wanted += [
            re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            for requirement in package.requires or []
            if "extra ==" not in requirement
        ]
    return total


def count_cpp_bytes(build: Path) -> int:
    """The program, its library, and ONNX Runtime's."""
    files = {path.resolve() for pattern in ("glm-run", "lib*.so*") for path in build.glob(pattern)}
    return sum(_count(files))


def count_node_bytes(package: Path) -> int:
    """The package and what it depends on, with the binaries of this system only."""
    modules = package / "node_modules"
    files = set((package / "src").rglob("*.js"))
    for name in _NODE_PACKAGES:
        files |= set((modules / name).rglob("*"))
    binaries = modules / "onnxruntime-node" / "bin"
    kept = {path for path in files if binaries not in path.parents or "linux/x64" in str(path)}
    return sum(_count(kept))


def count_page_bytes(page: Path) -> int:
    """The page, with the one of its two builds of ONNX Runtime that knows no WebGPU."""
    return sum(_count(path for path in page.rglob("*") if not _OTHER_BUILD.search(path.name)))


def _count(files: Iterable[Path]) -> Iterable[int]:
    return (
        file.stat().st_size for file in files if file.is_file() and "__pycache__" not in file.parts
    )
