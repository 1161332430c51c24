import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from glm_runtime.graph import machine


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /sys of its own: four logical processors on two cores."""
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    (tmp_path / "fs/cgroup/cpu").mkdir(parents=True)
    (tmp_path / "fs/cgroup/memory").mkdir(parents=True)
    monkeypatch.setattr(machine, "_SYSTEM", tmp_path)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    return tmp_path


def allow(monkeypatch: pytest.MonkeyPatch, *cpus: int) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _pid: set(cpus), raising=False)


def test_hyper_threads_of_a_core_count_once(system: Path, monkeypatch: pytest.MonkeyPatch):
    allow(monkeypatch, 0, 1, 2, 3)
    assert machine.count_usable_cores() == 2


def test_affinity_is_respected(system: Path, monkeypatch: pytest.MonkeyPatch):
    allow(monkeypatch, 0, 2)
    assert machine.count_usable_cores() == 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_the_share_of_a_container_is_respected(
    system: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
):
    allow(monkeypatch, 0, 1, 2, 3)
    for name, content in files.items():
        (system / "fs/cgroup" / name).write_text(content + "\n")
    assert machine.count_usable_cores() == cores


def test_the_memory_of_a_container_is_respected(system: Path):
    group = system / "fs/cgroup"
    (group / "memory.max").write_text("1000000\n")
    (group / "memory.current").write_text("400000\n")
    assert machine.read_available_memory_bytes() == 600_000
    assert machine.read_total_memory_bytes() == 1_000_000
    (group / "memory.max").write_text("max\n")
    assert machine.read_total_memory_bytes() == psutil.virtual_memory().total
    assert machine.read_available_memory_bytes() > 600_000


@pytest.mark.parametrize(
    ("limit", "used", "statistics", "content"),
    [
        ("memory.max", "memory.current", "memory.stat", "anon 9\ninactive_file 300000\n"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "inactive_file 1\ntotal_inactive_file 300000\n",
        ),
    ],
)
def test_the_page_cache_of_a_container_is_available(
    system: Path, limit: str, used: str, statistics: str, content: str
):
    """Reading a checkpoint fills it, so a folder seemed not to fit that did."""
    for name, text in ((limit, "1000000"), (used, "900000"), (statistics, content)):
        (system / "fs/cgroup" / name).write_text(text)
    assert machine.read_available_memory_bytes() == 400_000


def test_processor_features_are_read_from_its_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = "model name\t: Fast 9000\nflags\t\t: fpu avx2 nonsense avx512_vnni fma\n"
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "_PROCESS", tmp_path)
    assert machine.read_cpu_name() == "Fast 9000"
    assert machine.read_cpu_features() == ("avx2", "fma", "avx512_vnni")


def test_without_a_description_there_are_no_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(machine, "_PROCESS", tmp_path)
    assert machine.read_cpu_features() == ()


def test_peak_memory_does_not_lie_below_what_is_used_now():
    assert machine.read_peak_memory_bytes() >= 0.9 * psutil.Process().memory_info().rss


def test_bandwidth_counts_every_byte_of_the_buffer(monkeypatch: pytest.MonkeyPatch):
    """A clock that ticks once per reading makes each pass take a second."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(ticks))
    assert machine.measure_read_bytes_per_second(2, buffer_bytes=1 << 16) == 1 << 16


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux counts")
def test_peak_memory_is_not_that_of_the_process_which_started_us():
    """getrusage's is, since a child begins as its parent's copy."""
    held = bytearray(400_000_000)
    held[::4096] = bytes(len(held[::4096])).replace(b"\0", b"x")
    code = "from glm_runtime.graph.machine import read_peak_memory_bytes as r; print(r())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert 0 < int(result.stdout) < len(held) / 2


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_is_given_back():
    blocks = [bytes(60_000) for _ in range(1000)]
    pinned = blocks[-1]  # glibc gives back by itself what lies behind the last block
    before = psutil.Process().memory_info().rss
    del blocks
    machine.give_back_memory()
    assert before - psutil.Process().memory_info().rss > 40_000_000
    assert len(pinned) == 60_000
