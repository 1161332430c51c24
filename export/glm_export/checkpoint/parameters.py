"""The decoder's float parameters, read from a checkpoint by rows. Read `checkpoint.py` before."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.errors import CheckpointError
from glm_export.even_sample import choose_evenly
from glm_export.model.architectures import ParameterSource
from glm_quantize import FloatArray

_WHOLE = 1 << 62


@dataclass(frozen=True)
class ParameterRows:
    """Reads parameters by the decoder's names, as float32."""

    checkpoint: Checkpoint
    sources: Mapping[str, ParameterSource]

    def read(self, name: str) -> FloatArray:
        """Read a whole parameter.

        Raises:
            CheckpointError: the parameter cannot be read, or holds NaN or Inf.
        """
        parts = [rows for _, rows in self.iterate_rows(name, _WHOLE)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def sample_rows(self, name: str, count: int) -> FloatArray:
        """Read at most `count` evenly spaced rows [n, C]."""
        starts: list[tuple[str, int]] = [
            (part, row) for part, shape in self.sources[name].tensors for row in range(shape[0])
        ]
        chosen = [starts[index] for index in choose_evenly(len(starts), count)]
        return np.concatenate([self.checkpoint.read_rows(p, row, row + 1) for p, row in chosen])

    def iterate_rows(self, name: str, numbers: int) -> Iterator[tuple[int, FloatArray]]:
        """Yield the index of the first row, and rows with about `numbers` numbers, in order.

        Raises:
            CheckpointError: the parameter cannot be read, or holds NaN or Inf.
        """
        row = 0
        for part, shape in self.sources[name].tensors:
            step = max(1, numbers // (shape[1] if len(shape) > 1 else 1))
            for start in range(0, shape[0], step):
                stop = min(start + step, shape[0])
                rows = self.checkpoint.read_rows(part, start, stop)
                if not np.isfinite(rows).all():
                    raise CheckpointError(
                        f"{part}, rows {start}-{stop} have NaN or Inf; check the checkpoint's file."
                    )
                yield row + start, rows
            row += shape[0]
