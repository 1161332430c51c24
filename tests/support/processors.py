"""`runtime/cpp` on processors that this machine does not have, emulated by QEMU.

The libraries are the real ones: ONNX Runtime's for 64-bit ARM comes from its wheel. QEMU tells a
program of another processor what Linux says of this one, which ONNX Runtime's ARM library does
not survive: it finds an ARM's /proc/cpuinfo in the folder that QEMU is given as root.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.commands import finish, start
from support.cpp_build import SOURCE, build, find_header
from support.onnxruntime_wheel import fetch_library

PROGRAM = Path(__file__).parents[1] / "hosts" / "programs" / "vectors.c"
ARM_LIBRARIES = Path("/usr/aarch64-linux-gnu")
_ARM_COMPILER = "aarch64-linux-gnu-gcc"
_ARM_WHEELS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64")


@dataclass(frozen=True)
class Processor:
    """One that QEMU knows.

    Attributes:
        name: QEMU's, for `-cpu`.
        machine: "x86_64" or "aarch64".
        part: number of the ARM's design, and what Linux calls its features.
        features: see part.
    """

    name: str
    machine: str
    part: str = ""
    features: str = ""


HASWELL = Processor("Haswell", "x86_64")  # AVX2
NEHALEM = Processor("Nehalem", "x86_64")  # SSE 4.2
CORTEX_A72 = Processor("cortex-a72", "aarch64", "0xd08", "fp asimd crc32 cpuid")
NEOVERSE_N1 = Processor("neoverse-n1", "aarch64", "0xd0c", "fp asimd crc32 asimdhp cpuid asimddp")


def build_for_arm(folder: Path, cache: Path) -> Path:
    """`vectors` for 64-bit ARM; skips the test where a tool is missing."""
    for tool in (_ARM_COMPILER, "aarch64-linux-gnu-g++", "qemu-aarch64"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: install Debian's packages g++-aarch64-linux-gnu, qemu-user")
    library = fetch_library(cache, _ARM_WHEELS, "libonnxruntime.so")
    settings = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_C_COMPILER": _ARM_COMPILER,
        "CMAKE_CXX_COMPILER": "aarch64-linux-gnu-g++",
        "ONNXRUNTIME_INCLUDE": find_header(),
        "ONNXRUNTIME_LIBRARY": library,
        "PYTHON": sys.executable,
    }
    options = [f"-D{name}={value}" for name, value in settings.items()]
    _run(["cmake", "-S", str(SOURCE), "-B", str(folder), *options])
    _run(["cmake", "--build", str(folder), "--parallel", "2", "--target", "glm"])
    return _compile(_ARM_COMPILER, folder, f"-Wl,-rpath-link,{library.parent}")


def build_for_here(folder: Path) -> Path:
    """`vectors` for this processor's family."""
    if shutil.which("qemu-x86_64") is None:
        pytest.skip("needs qemu-x86_64: install Debian's package qemu-user")
    return _compile("cc", build(folder))


def answer(
    processor: Processor, program: Path, folder: Path, vector: dict[str, Any], limit: int
) -> dict[str, Any]:
    """What the program prints for a vector's prompt: `limit` tokens of each answer."""
    content = json.loads((folder / "conformance.json").read_text("utf-8"))
    numbers = [content["sampling"][name] for name in ("temperature", "top_k", "top_p", "seed")]
    prompt = program.with_name("prompt.txt")
    prompt.write_bytes(vector["rendered"].encode())
    command: list[object] = [program, folder, *numbers, limit, prompt]
    root = ["-L", make_root(program.parent / processor.name, processor)] if processor.part else []
    command = [f"qemu-{processor.machine}", *root, "-cpu", processor.name, *command]
    found: dict[str, Any] = json.loads(_run([str(word) for word in command]))
    return found


def make_root(root: Path, processor: Processor) -> Path:
    """Where an emulated ARM finds its libraries, and a description of itself."""
    if not root.is_dir():
        (root / "proc").mkdir(parents=True)
        (root / "lib").symlink_to(ARM_LIBRARIES / "lib")
        lines = [
            f"Features\t: {processor.features}",
            "CPU implementer\t: 0x41",
            "CPU architecture: 8",
            "CPU variant\t: 0x0",
            f"CPU part\t: {processor.part}",
            "CPU revision\t: 3",
        ]
        cores = ["\n".join([f"processor\t: {core}", *lines, "", ""]) for core in range(2)]
        (root / "proc" / "cpuinfo").write_text("".join(cores), encoding="utf-8")
    return root


def _compile(compiler: str, built: Path, *options: str) -> Path:
    program = built / "vectors"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{SOURCE / 'include'}"]
    links = [f"-L{built}", "-lglm", f"-Wl,-rpath,{built}", *options]
    _run([compiler, *flags, str(PROGRAM), "-o", str(program), *links])
    return program


def _run(command: list[str]) -> str:
    code, out, err = finish(start(command))
    assert code == 0, out[-2000:] + err[-4000:]
    return out
