"""What both benchmarks need: spread of figures, pairs' ratios, the machine, a measured child.

Knows nothing about models.
"""

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from glm_runtime.graph.machine import (
    count_usable_cores,
    read_cpu_features,
    read_cpu_name,
    read_total_memory_bytes,
)

_TAIL_CHARACTERS = 2000


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    minimum: float
    lower_quartile: float
    upper_quartile: float
    maximum: float
    count: int

    def describe(self, digits: int) -> str:
        """Median (minimum - maximum), for a table."""
        return f"{self.median:.{digits}f} ({self.minimum:.{digits}f} - {self.maximum:.{digits}f})"


@dataclass(frozen=True)
class ChildReport:
    """A child process that has ended: its stdout, and the kernel's own maximum of its memory.

    `cpu_seconds` is of all its threads.
    """

    seconds: float
    peak_rss_bytes: int
    output: str
    cpu_seconds: float


class ChildError(Exception):
    """A child process failed; the message holds the end of what it said."""


def summarize(values: Sequence[float]) -> Spread:
    """Median, quartiles and ends of at least one value."""
    ordered = sorted(values)
    quartiles = [ordered[0]] * 3
    if len(ordered) > 1:
        quartiles = statistics.quantiles(ordered, n=4, method="inclusive")
    return Spread(
        statistics.median(ordered),
        ordered[0],
        quartiles[0],
        quartiles[2],
        ordered[-1],
        len(ordered),
    )


def compare_pairs(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Spread of ours / theirs, round by round: what disturbed a whole round cancels out."""
    return summarize([a / b for a, b in zip(ours, theirs, strict=True)])


def as_json(spread: Spread) -> dict[str, float | int]:
    """The spread with four significant digits."""
    figures: dict[str, float | int] = {
        key: float(f"{value:.4g}") for key, value in asdict(spread).items()
    }
    return figures | {"count": spread.count}


def describe_machine(packages: Sequence[str]) -> dict[str, object]:
    """Device and versions, for the head of the output and for the JSON line."""
    return {
        "cpu": read_cpu_name(),
        "cpu_features": list(read_cpu_features()),
        "cores": count_usable_cores(),
        "memory_gb": round(read_total_memory_bytes() / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def show_machine(machine: Mapping[str, object]) -> None:
    """Print the head of a benchmark's output."""
    for key, value in machine.items():
        print(f"{key:16} {_flatten(value)}")
    busy = os.getloadavg()[0]
    print(f"{'load average':16} {busy:.2f}{' (not idle: expect spread)' if busy > 0.5 else ''}")


def run_child(command: Sequence[str]) -> ChildReport:
    """Run a command to its end and ask the kernel what it needed.

    The maximum starts at what this process holds, since Linux counts a child from before it has
    loaded its program; a benchmark that calls this holds some 50 MB and stays far below.

    Raises:
        ChildError: it failed.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)  # reaped here, not by Popen
        errors.seek(0)
        said = errors.read()[-_TAIL_CHARACTERS:].strip()
    if child.returncode:
        name = " ".join(Path(part).name for part in command[:3])
        raise ChildError(f"{name} ended with code {child.returncode}: {said}")
    unit = 1 if sys.platform == "darwin" else 1024
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return ChildReport(seconds, usage.ru_maxrss * unit, output, cpu_seconds)


def _flatten(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
