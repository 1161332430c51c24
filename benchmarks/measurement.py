"""Figures: the spread of several measurements, ratios of pairs, and the machine they came from."""

import datetime
import importlib.metadata
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from glm_runtime.graph.machine import (
    count_usable_cores,
    read_cpu_features,
    read_cpu_name,
    read_total_memory_bytes,
)

# What decides how fast int8 sums are, the strongest first.
_INSTRUCTION_SETS = (
    "amx_int8",
    "avx512_vnni",
    "avx_vnni",
    "avx512f",
    "avx2",
    "i8mm",
    "asimddp",
    "asimd",
)


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


def summarize(values: Sequence[float]) -> Spread:
    """Median, quartiles and ends of at least one value."""
    ordered = sorted(values)
    quartiles = [ordered[0]] * 3
    if len(ordered) > 1:
        quartiles = statistics.quantiles(ordered, n=4, method="inclusive")
    median = statistics.median(ordered)
    return Spread(median, ordered[0], quartiles[0], quartiles[2], ordered[-1], len(ordered))


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
    """Date, device, instruction set and versions, for the head and for the JSON line."""
    features = read_cpu_features()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": read_cpu_name(),
        "instruction_set": next((one for one in _INSTRUCTION_SETS if one in features), "unknown"),
        "cpu_features": list(features),
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
    load = os.getloadavg()[0]
    print(f"{'load average':16} {load:.2f}{' (not idle: expect spread)' if load > 0.5 else ''}")


def _flatten(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
