"""Huge pages of other processes, as Linux reports them."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

_TRY = """
import sys
from glm_runtime.graph.machine import move_to_huge_pages
block = bytearray(64 << 20)
sys.exit(move_to_huge_pages() == 0)
"""
_HANG_SECONDS = 120.0


def require_huge_pages() -> None:
    """Skip a test where the system moves no memory onto huge pages."""
    if subprocess.run([sys.executable, "-c", _TRY], check=False).returncode != 0:
        pytest.skip("this kernel moves no memory onto huge pages")


def measure_huge_bytes(process: int) -> int:
    text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8")
    return int(re.findall(r"AnonHugePages: +(\d+)", text)[0]) << 10


def wait_for_huge_pages(process: int, size_bytes: int) -> None:
    """Wait until so many bytes are on huge pages; a process that moves none fails the test."""
    deadline = time.monotonic() + _HANG_SECONDS
    while measure_huge_bytes(process) < size_bytes:
        assert time.monotonic() < deadline, measure_huge_bytes(process)
        time.sleep(0.05)
