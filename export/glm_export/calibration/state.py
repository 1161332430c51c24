"""The finished work of calibration on disk, from which a killed export continues.

A folder (see `unfinished.py`) holds the codes of every finished matrix, the folded scales, and the
inputs of the next layer. `progress.json` is replaced last, so that it lists only complete work.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from glm_export.errors import CheckpointError
from glm_export.text_file import replace_text
from glm_quantize import (
    FloatArray,
    PackedRows,
    QuantizedRows,
    Scheme,
    pack_rows,
    unpack_rows,
)

_PROGRESS = "progress.json"


@dataclass
class CalibrationState:
    """Finished stages: 0 is the embedding, i + 1 layer i, the last one the head.

    Attributes:
        folder: folder of the files.
        stages_done: number of complete stages.
        matrices_done: matrices of the next stage whose codes are complete.
        fallbacks: reason for each parameter whose method could not be used.
    """

    folder: Path
    stages_done: int = 0
    matrices_done: list[str] = field(default_factory=list)
    fallbacks: dict[str, str] = field(default_factory=dict)

    def save_stage(self, hidden: FloatArray | None) -> None:
        """Count one more stage as done.

        Args:
            hidden: [n, S, C] float32 inputs of the next stage; None after the last stage.
        """
        if hidden is not None:
            np.save(self._hidden_path(self.stages_done + 1), hidden)
            _sync(self._hidden_path(self.stages_done + 1))
        self.stages_done += 1
        self.matrices_done.clear()
        self.save_progress()
        self._hidden_path(self.stages_done - 1).unlink(missing_ok=True)

    def finish_matrix(self, name: str) -> None:
        """Count a matrix of the next stage as done."""
        for path in self.folder.glob(f"{name}.*"):
            _sync(path)
        self.matrices_done.append(name)
        self.save_progress()

    def save_progress(self) -> None:
        """Replace progress.json atomically."""
        content = {
            "stages_done": self.stages_done,
            "matrices_done": self.matrices_done,
            "fallbacks": self.fallbacks,
        }
        replace_text(self.folder / _PROGRESS, json.dumps(content))

    def load_hidden(self) -> FloatArray:
        """Read the inputs of the next stage."""
        hidden: FloatArray = np.load(self._hidden_path(self.stages_done))
        return hidden

    def write_codes(self, name: str, first_row: int, rows: QuantizedRows) -> None:
        """Store codes; the rows of a parameter come in order, and from 0 again after a kill."""
        for kind, part in _name_parts(pack_rows(rows)).items():
            path = self.folder / f"{name}.{kind}"
            with path.open("wb" if first_row == 0 else "ab") as file:
                part.tofile(file)

    def has_codes(self, name: str) -> bool:
        """Return True if this parameter has calibrated codes."""
        return (self.folder / f"{name}.packed").is_file()

    def read_codes(self, name: str, scheme: Scheme, inputs: int, rows: range) -> QuantizedRows:
        """Read codes that `write_codes` stored.

        Args:
            name: name of the parameter.
            scheme: its scheme.
            inputs: number of weights in a row.
            rows: consecutive rows to read.
        """
        blocks = scheme.count_blocks(inputs)
        widths = {
            "packed": inputs * scheme.bits // 8,
            "scales": blocks,
            "zero_points": -(-blocks * scheme.bits // 8),
        }
        packed = self._read_part(name, "packed", widths, rows)
        scales = self._read_part(name, "scales", widths, rows)
        zeros = None if scheme.is_symmetric else self._read_part(name, "zero_points", widths, rows)
        return unpack_rows(PackedRows(packed, scales, zeros), scheme)

    def save_arrays(self, name: str, arrays: Mapping[str, FloatArray]) -> None:
        """Store several arrays under one name; a second call replaces all of them."""
        partial = self.folder / f"{name}.partial.npz"
        np.savez(partial, **arrays)  # type: ignore[arg-type]  # its stub has a keyword of its own
        _sync(partial)
        partial.replace(self.folder / f"{name}.npz")

    def load_arrays(self, name: str) -> dict[str, FloatArray] | None:
        """Read the arrays that `save_arrays` stored under a name; None if there are none."""
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}

    def _hidden_path(self, stage: int) -> Path:
        return self.folder / f"hidden-{stage}.npy"

    def _read_part(
        self, name: str, kind: str, widths: Mapping[str, int], rows: range
    ) -> np.ndarray:
        dtype = np.dtype(np.float32 if kind == "scales" else np.uint8)
        width = widths[kind]
        flat = np.fromfile(
            self.folder / f"{name}.{kind}",
            dtype,
            len(rows) * width,
            offset=rows.start * width * dtype.itemsize,
        )
        if flat.size != len(rows) * width:
            raise CheckpointError(
                f"the codes of {name} that an earlier run kept are damaged; run with --no-resume."
            )
        return flat.reshape(len(rows), width)


def open_state(folder: Path) -> CalibrationState:
    """Read the state in a folder; return a new one if there is none."""
    try:
        content = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
        stages, matrices = int(content["stages_done"]), list(content["matrices_done"])
        return CalibrationState(folder, stages, matrices, dict(content["fallbacks"]))
    except (OSError, ValueError, KeyError, TypeError):
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    state = CalibrationState(folder)
    state.save_progress()
    return state


def _sync(path: Path) -> None:
    """Wait until a complete file is on the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _name_parts(packed: PackedRows) -> dict[str, np.ndarray]:
    parts: dict[str, np.ndarray] = {"packed": packed.packed, "scales": packed.scales}
    if packed.zero_points is not None:
        parts["zero_points"] = packed.zero_points
    return parts
