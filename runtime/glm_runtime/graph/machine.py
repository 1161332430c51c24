"""This machine: the cores, memory and CPU features of this process, huge pages, bandwidth.

CPU affinity and Linux control groups are respected, so a container with two of 64 cores gets two
threads. This file knows nothing about models.
"""

import ctypes
import math
import mmap
import os
import platform
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

_HUGE_PAGE_BYTES = 2 << 20
_MADV_COLLAPSE = 25  # Linux, include/uapi/asm-generic/mman-common.h
_BUFFER_BYTES = 1 << 30  # for the memory bandwidth
_PASSES = 5  # over the buffer
# On Linux the start time of a process is known to a second, since /proc/stat rounds the boot time.
_CLOCK_SLACK_SECONDS = 2.0
_SYSTEM = Path("/sys")
_PROCESS = Path("/proc")
# The largest number of threads that ONNX Runtime is asked for; thousands of them freeze a machine.
MAX_THREADS = 1024
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


def count_logical_processors() -> int:
    """Return the number of logical processors that this process may use, hyper-threads included."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    return max(0, min(available, int(limit - used) + _read_reclaimable_bytes()))


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


def is_made_by_running(path: Path, process: int) -> bool:
    """Return True if the process that made `path` still runs; a later one may have its number."""
    try:
        status = psutil.Process(process)
        started, is_zombie = status.create_time(), status.status() == psutil.STATUS_ZOMBIE
        made = path.stat().st_mtime
    except (psutil.NoSuchProcess, FileNotFoundError):  # it has just ended
        return False
    except psutil.AccessDenied:  # a process of another user, on macOS or Windows
        return True
    return not is_zombie and started < made + _CLOCK_SLACK_SECONDS


def move_to_huge_pages() -> int:
    """Move private writable memory of this process onto huge pages, since decoding reads all of it.

    A processor translates 262,144 page addresses per GiB with pages of 4 KiB, and 512 with pages of
    2 MiB. This needs Linux 6.1 or later, and happens only on request because it takes seconds.
    Measured at 1.5 B parameters, int4: 2.4 s for 1.4 GB, then 7 % more tokens per second.

    Returns:
        number of bytes moved; 0 where the system does not support it.
    """
    if sys.platform != "linux":
        return 0
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    spans = list(_find_spans(Path("/proc/self/maps").read_text(encoding="utf-8")))
    return sum(size for start, size in spans if madvise(start, size, _MADV_COLLAPSE) == 0)


def allocate_zeros(shape: tuple[int, ...], dtype: str | np.dtype[Any]) -> npt.NDArray[Any]:
    """Return zeros that take memory page by page, when they are first written.

    numpy asks for huge pages, and the system clears one at the first write into it. Several rows of
    KV caches lie so that the first token of each touches nearly all of them: a gigabyte took 1.9 s.

    Raises:
        MemoryError: the system refuses so much.
    """
    size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if not size_bytes:
        return np.zeros(shape, dtype)
    try:
        memory = _map_memory(size_bytes)
    except OSError as error:
        raise MemoryError(f"unable to allocate {size_bytes / 1e9:.2f} GB") from error
    return np.frombuffer(memory, dtype).reshape(shape)


def _map_memory(size_bytes: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size_bytes)
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if sys.platform == "linux":
        with suppress(OSError):  # of a kernel without huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def give_back_memory() -> None:
    """Give freed memory back to the system, which the C library would keep for later.

    Only glibc needs it: many threads allocate in many arenas, whose free parts add up. It takes
    some milliseconds, in which other threads may wait for memory.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in musl
    if trim is not None:
        trim(0)


def measure_read_bytes_per_second(max_threads: int, buffer_bytes: int = _BUFFER_BYTES) -> float:
    """Return the memory bandwidth, which bounds decoding, in bytes per second.

    Method: 1, 2, ... threads sum a buffer of 1 GiB (far larger than any cache, smaller where memory
    is short). numpy's integer sum is vectorized and releases Python's lock. The result is the best
    of several passes and numbers of threads.

    Args:
        max_threads: the largest number of threads to try.
        buffer_bytes: size of the buffer; at most a quarter of the available memory is taken.
    """
    size_bytes = min(buffer_bytes, read_available_memory_bytes() // 4)
    buffer = np.ones(max(1, size_bytes // 8), np.int64)
    return max(_measure_rate(buffer, threads) for threads in range(1, max_threads + 1))


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


def _read_reclaimable_bytes() -> int:
    """Return the control group's page cache, which counts as used but is freed on demand."""
    files = {"memory.stat": "inactive_file", "memory/memory.stat": "total_inactive_file"}
    for name, key in files.items():
        words = _read_words(_SYSTEM / "fs/cgroup" / name) or []
        if key in words:
            return int(words[words.index(key) + 1])
    return 0


def _read_words(path: Path) -> list[str] | None:
    try:
        return path.read_text(encoding="utf-8").split() or None
    except OSError:
        return None


def _find_spans(maps: str) -> Iterator[tuple[int, int]]:
    """Yield start and size of every range of whole huge pages in private anonymous memory."""
    for line in maps.splitlines():
        addresses, permissions, _, _, _, *names = line.split(maxsplit=5)
        if permissions != "rw-p" or (names and names[0] != "[heap]"):
            continue
        first, last = (int(address, 16) for address in addresses.split("-"))
        start = -(-first // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
        end = last // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
        if start < end:
            yield start, end - start


def _measure_rate(buffer: npt.NDArray[np.int64], threads: int) -> float:
    parts = np.array_split(buffer, threads)
    best_seconds = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_PASSES):
            start = time.perf_counter()
            list(pool.map(np.add.reduce, parts))
            best_seconds = min(best_seconds, time.perf_counter() - start)
    return buffer.nbytes / best_seconds
