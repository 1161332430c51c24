"""What calibration has finished, on disk: a killed export goes on at the matrix where it stopped.

A folder (see `unfinished.py`) holds the codes of every matrix, the scales folded so far, and the
hidden states that the next layer starts from. `progress.json` is replaced last, so that it never
promises what is not there.
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
        folder: where it lies.
        stages_done: how many stages are complete.
        matrices_done: those of the stage after them whose codes are complete.
        fallbacks: parameter -> why its method could not be used.
    """

    folder: Path
    stages_done: int = 0
    matrices_done: list[str] = field(default_factory=list)
    fallbacks: dict[str, str] = field(default_factory=dict)

    def save_stage(self, hidden: FloatArray | None) -> None:
        """Count one more stage as done.

        Args:
            hidden: [n, S, C] float32, what the next stage starts from; None after the last.
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
        """Say what is done, at once or not at all."""
        content = {
            "stages_done": self.stages_done,
            "matrices_done": self.matrices_done,
            "fallbacks": self.fallbacks,
        }
        replace_text(self.folder / _PROGRESS, json.dumps(content))

    def load_hidden(self) -> FloatArray:
        """What the last finished stage left."""
        hidden: FloatArray = np.load(self._hidden_path(self.stages_done))
        return hidden

    def write_codes(self, name: str, first_row: int, rows: QuantizedRows) -> None:
        """Keep codes; a parameter's rows come in order, and again from 0 after a kill."""
        for kind, part in _name_parts(pack_rows(rows)).items():
            path = self.folder / f"{name}.{kind}"
            with path.open("wb" if first_row == 0 else "ab") as file:
                part.tofile(file)

    def has_codes(self, name: str) -> bool:
        """Whether this parameter was calibrated."""
        return (self.folder / f"{name}.packed").is_file()

    def read_codes(self, name: str, scheme: Scheme, inputs: int, rows: range) -> QuantizedRows:
        """Codes that `write_codes` kept.

        Args:
            name: the parameter.
            scheme: its scheme.
            inputs: weights of a row.
            rows: consecutive ones.
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
        """Keep named arrays under one name; replaced as a whole."""
        partial = self.folder / f"{name}.partial.npz"
        np.savez(partial, **arrays)  # type: ignore[arg-type]  # its stub has a keyword of its own
        _sync(partial)
        partial.replace(self.folder / f"{name}.npz")

    def load_arrays(self, name: str) -> dict[str, FloatArray] | None:
        """What `save_arrays` kept under that name, None if nothing."""
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
                f"the codes of {name} that an earlier run left are damaged; start anew."
            )
        return flat.reshape(len(rows), width)


def open_state(folder: Path) -> CalibrationState:
    """The state kept in a folder, or a new one if there is none."""
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
    """Wait until the disk has a file that is complete."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _name_parts(packed: PackedRows) -> dict[str, np.ndarray]:
    parts: dict[str, np.ndarray] = {"packed": packed.packed, "scales": packed.scales}
    if packed.zero_points is not None:
        parts["zero_points"] = packed.zero_points
    return parts
