"""The list of complete tensors of a data file, so that a killed export continues with the next.

The list is next to the data file. It is replaced only after the tensors are on the disk, so every
listed tensor is complete. A list for another layout is ignored. `writer.py` uses it.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from glm_export.plan.plan import ExportPlan
from glm_export.text_file import replace_text

_RECORD = "written.json"
# Waiting for the disk after each small tensor would take longer than writing the tensors.
_SECONDS_BETWEEN_SAVES = 1.0


@dataclass(frozen=True)
class WeightError:
    """Rounding error of a tensor, as float64 sums over its weights."""

    squared_error: float = 0.0
    squared_weight: float = 0.0

    def __add__(self, other: "WeightError") -> "WeightError":
        """Add the sums of two tensors."""
        return WeightError(
            self.squared_error + other.squared_error, self.squared_weight + other.squared_weight
        )

    @property
    def relative(self) -> float:
        """Square root of the sum of squared errors over the sum of squared weights."""
        return float(np.sqrt(self.squared_error / max(self.squared_weight, 1e-30)))


@dataclass
class WrittenTensors:
    """The list of complete tensors.

    Attributes:
        path: path of the list.
        layout: hash of the data file's layout.
        errors: rounding errors of the complete tensors; zero for a float tensor.
    """

    path: Path
    layout: str
    errors: dict[str, WeightError] = field(default_factory=dict)
    _saved_at: float = field(default_factory=time.monotonic)

    def add(self, name: str, error: WeightError, sync: Callable[[], None]) -> None:
        """Add a complete tensor; the list is saved from time to time.

        Args:
            name: name of the tensor.
            error: rounding error of the tensor.
            sync: waits until the data file is on the disk.
        """
        self.errors[name] = error
        if time.monotonic() - self._saved_at >= _SECONDS_BETWEEN_SAVES:
            self.save(sync)

    def save(self, sync: Callable[[], None]) -> None:
        """Wait until the data file is on the disk, then save the list."""
        sync()
        errors = {n: [e.squared_error, e.squared_weight] for n, e in self.errors.items()}
        replace_text(self.path, json.dumps({"layout": self.layout, "errors": errors}))
        self._saved_at = time.monotonic()


def open_written(data_file: Path, plan: ExportPlan, *, is_checked: bool) -> WrittenTensors:
    """Read the list for a data file; return an empty one if there is none for this layout.

    Args:
        data_file: path of the data file, which may not exist.
        plan: layout of the data file.
        is_checked: True to accept only tensors that were read back.
    """
    path, layout = data_file.parent / _RECORD, _hash_layout(plan, is_checked=is_checked)
    written = WrittenTensors(path, layout)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        status = data_file.stat()
        is_whole = status.st_size == plan.size_bytes
        is_own = status.st_nlink == 1  # else it is also in a finished folder
        if is_whole and is_own and content["layout"] == layout:
            written.errors.update({n: WeightError(*e) for n, e in content["errors"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return written


def _hash_layout(plan: ExportPlan, *, is_checked: bool) -> str:
    tensors = [
        (tensor.name, str(tensor.scheme), [(s.name, s.dtype, s.offset_bytes) for s in segments])
        for tensor in plan.tensors.values()
        for segments in [tensor.segments]
    ]
    return hashlib.sha256(json.dumps([plan.dtype, is_checked, tensors]).encode()).hexdigest()
