"""Run a command as if this x86-64 processor had fewer instructions, at its full speed.

    .venv/bin/python tests/support/weaker_processor.py avx2 .venv/bin/pytest tests/hosts

ONNX Runtime has no setting for this. Its kernels ask the processor which instructions it has
(CPUID) and the operating system which registers it saves (XGETBV). In a copy of its libraries this
script replaces each XGETBV with a constant, so that the larger registers look switched off.
PyTorch, oneDNN and OpenBLAS have environment variables of their own. With "avx2", MatMulNBits gave
the same sums as under `qemu-x86_64 -cpu Haswell`, at accuracy levels 0 and 4.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_XGETBV = re.compile(rb"\x0f\x01\xd0")
# The same bytes occur inside other instructions. A real XGETBV stands behind `xor ecx, ecx`, which
# selects the register, or just behind CPUID.
_SELECTS, _CPUID = (b"\x31\xc9", b"\x33\xc9"), b"\x0f\xa2"  # two ways to write `xor`
# What the register XCR0 says: x87, SSE and, for AVX2, the upper halves of the AVX registers.
_MASKS = {"avx2": 0b111, "sse": 0b011}
_LEVEL = "GLM_TESTS_PROCESSOR"  # tells tests that bring another ONNX Runtime which level it is
_VARIABLES = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "sse": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
}


def limit_library(content: bytes, mask: int) -> tuple[bytes, int]:
    """The library with each XGETBV replaced by `push mask; pop rax`, and how many there were."""
    changed = bytearray(content)
    count = 0
    for match in _XGETBV.finditer(content):
        start = match.start()
        before = content[start - 24 : start]
        if before.endswith(_SELECTS) or _CPUID in before:
            changed[start : start + 3] = bytes([0x6A, mask, 0x58])
            count += 1
    return bytes(changed), count


def copy_onnxruntime(folder: Path, mask: int) -> int:
    """Copy the installed package `onnxruntime` into the folder, limited; returns the changes."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        raise SystemExit("onnxruntime is not installed")
    shutil.copytree(Path(found.origin).parent, folder / "onnxruntime")
    total = 0
    for path in (folder / "onnxruntime" / "capi").glob("*.so*"):
        content, count = limit_library(path.read_bytes(), mask)
        path.write_bytes(content)
        total += count
    return total


def limit_other_library(path: Path) -> Path:
    """A library that tests do not take from Python's package; limited as this script was told."""
    level = os.environ.get(_LEVEL)
    if level is None:
        return path
    limited = path.parent / level / path.name
    limited.parent.mkdir(exist_ok=True)
    content, count = limit_library(path.read_bytes(), _MASKS[level])
    assert count, f"no XGETBV was found in {path.name}"
    limited.write_bytes(content)
    return limited


def main(level: str, *command: str) -> int:
    """Run the command and return its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        changes = copy_onnxruntime(Path(folder), _MASKS[level])
        assert changes, "no XGETBV was found in ONNX Runtime"
        print(f"ONNX Runtime limited to {level}: {changes} places changed", file=sys.stderr)
        places = [folder, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        path = os.pathsep.join(place for place in places if place)
        environment = {**os.environ, **_VARIABLES[level], _LEVEL: level, "PYTHONPATH": path}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in _MASKS:
        raise SystemExit(f"usage: weaker_processor.py {{{','.join(_MASKS)}}} COMMAND...")
    raise SystemExit(main(*sys.argv[1:]))
