"""Which tensors of a data file are complete, on disk: a killed export goes on with the next one.

The record lies beside the file and is replaced only after the file's bytes are on the disk, so that
it never promises what is not there. A record of another layout is not used. `writer.py` keeps it.
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
# Waiting for the disk after each of a small model's tensors would take longer than writing them.
_SECONDS_BETWEEN_SAVES = 1.0


@dataclass(frozen=True)
class WeightError:
    """What rounding did to one tensor, as sums over its weights, in float64."""

    squared_error: float = 0.0
    squared_weight: float = 0.0

    def __add__(self, other: "WeightError") -> "WeightError":
        """Both together."""
        return WeightError(
            self.squared_error + other.squared_error, self.squared_weight + other.squared_weight
        )

    @property
    def relative(self) -> float:
        """Root of squared error over squared weight: 0.08 is 8 %."""
        return float(np.sqrt(self.squared_error / max(self.squared_weight, 1e-30)))


@dataclass
class WrittenTensors:
    """The record.

    Attributes:
        path: of the record.
        layout: what the file's bytes mean; a hash.
        errors: of the complete tensors by name; zero of those that stay float.
    """

    path: Path
    layout: str
    errors: dict[str, WeightError] = field(default_factory=dict)
    _saved_at: float = field(default_factory=time.monotonic)

    def add(self, name: str, error: WeightError, sync: Callable[[], None]) -> None:
        """One more is complete; saved now and then.

        Args:
            name: the tensor.
            error: what rounding did to it.
            sync: waits until the file's bytes are on the disk.
        """
        self.errors[name] = error
        if time.monotonic() - self._saved_at >= _SECONDS_BETWEEN_SAVES:
            self.save(sync)

    def save(self, sync: Callable[[], None]) -> None:
        """Put what is complete on the disk, first the file, then the record."""
        sync()
        errors = {n: [e.squared_error, e.squared_weight] for n, e in self.errors.items()}
        replace_text(self.path, json.dumps({"layout": self.layout, "errors": errors}))
        self._saved_at = time.monotonic()


def open_written(data_file: Path, plan: ExportPlan, *, is_checked: bool) -> WrittenTensors:
    """The record kept beside a data file, or an empty one if the file has none of this layout.

    Args:
        data_file: there or not.
        plan: the layout.
        is_checked: its tensors are to have been read back.
    """
    path, layout = data_file.parent / _RECORD, _hash_layout(plan, is_checked=is_checked)
    written = WrittenTensors(path, layout)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        status = data_file.stat()
        is_whole = status.st_size == plan.size_bytes
        is_own = status.st_nlink == 1  # else it is a finished folder's too
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
