"""Cores, memory and CPU features that this process may use.

CPU affinity and Linux control groups are respected, so a container with two of 64 cores gets two
threads. This file knows nothing about models.
"""

import math
import os
import platform
import sys
from pathlib import Path

import psutil

_SYSTEM = Path("/sys")
_PROCESS = Path("/proc")
# Instruction sets that ONNX Runtime's kernels use.
_KNOWN_FEATURES = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)


def count_usable_cores() -> int:
    """Return the number of physical cores that this process may use, at least 1.

    The hyper-threads of a core share its arithmetic units, so a core counts once.
    """
    quota = _read_cpu_quota()
    cores = _count_allowed_cores()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def read_available_memory_bytes() -> int:
    """Return the memory that can be used without swapping, within the container's limit."""
    available = int(psutil.virtual_memory().available)
    limit = _read_group_number("memory.max", "memory/memory.limit_in_bytes")
    used = _read_group_number("memory.current", "memory/memory.usage_in_bytes")
    if limit is None or used is None:
        return available
    return max(0, min(available, int(limit - used)))


def read_total_memory_bytes() -> int:
    """Return the memory of the machine, or of the container if that is less."""
    total = int(psutil.virtual_memory().total)
    limit = _read_group_number("memory.max", "memory/memory.limit_in_bytes")
    return total if limit is None else min(total, int(limit))


def read_peak_memory_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    status = _read_words(_PROCESS / "self/status") or []
    if "VmHWM:" in status:  # getrusage's maximum includes the parent process
        return int(status[status.index("VmHWM:") + 1]) * 1024
    import resource  # noqa: PLC0415  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_cpu_name() -> str:
    """Return the name of the processor."""
    for line in _read_cpu_lines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_cpu_features() -> tuple[str, ...]:
    """Return the instruction sets that matter for speed, in a fixed order; empty off Linux."""
    flags: set[str] = set()
    for line in _read_cpu_lines():
        if line.startswith(("flags", "Features")):
            flags.update(line.partition(":")[2].split())
    return tuple(feature for feature in _KNOWN_FEATURES if feature in flags)


def _read_cpu_lines() -> list[str]:
    path = _PROCESS / "cpuinfo"
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def _count_allowed_cores() -> int:
    if sys.platform != "linux":
        return psutil.cpu_count(logical=False) or os.cpu_count() or 1
    siblings = set()
    for cpu in os.sched_getaffinity(0):
        path = _SYSTEM / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        siblings.add(path.read_text(encoding="utf-8").strip() if path.exists() else str(cpu))
    return len(siblings)


def _read_cpu_quota() -> float | None:
    """Return the CPU limit of the control group in cores; `None` without a limit."""
    root = _SYSTEM / "fs/cgroup"
    unified = _read_words(root / "cpu.max")
    if unified is not None:
        return None if unified[0] == "max" else int(unified[0]) / int(unified[1])
    quota = _read_words(root / "cpu/cpu.cfs_quota_us")
    period = _read_words(root / "cpu/cpu.cfs_period_us")
    if quota is None or period is None or int(quota[0]) < 0:
        return None
    return int(quota[0]) / int(period[0])


def _read_group_number(unified: str, legacy: str) -> float | None:
    for name in (unified, legacy):
        words = _read_words(_SYSTEM / "fs/cgroup" / name)
        if words is not None:
            return None if words[0] == "max" else int(words[0])
    return None


def _read_words(path: Path) -> list[str] | None:
    try:
        return path.read_text(encoding="utf-8").split() or None
    except OSError:
        return None
