"""Adding rows of a low-rank change to rows of a tensor: weight * alpha / rank * (B A)[rows].

Memory is that of A and of a run of rows, never that of a whole B A.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from glm_export.checkpoint.adapters.open_adapter import LowRankChange
from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.errors import CheckpointError
from glm_quantize import FloatArray

_RUN_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class LowRankRows:
    """A low-rank change of one tensor.

    Attributes:
        stored: the adapter's tensors.
        change: names of the change's tensors.
        factor: factor of the product of both matrices.
        first_row: row of the tensor where the change's row 0 belongs; negative if the tensor has
            later rows of the change only.
    """

    stored: Checkpoint
    change: LowRankChange
    factor: float
    first_row: int = 0

    def add_to_linear(self, rows: FloatArray, start: int) -> None:
        """Add to rows [n, inputs] of a linear layer's weight from row `start` on, in place.

        Raises:
            CheckpointError: the change cannot be read, or holds NaN or Inf.
        """
        down = self.stored.read(self.change.down)
        for first, last in self._iterate_runs(self.change.up, rows, start):
            up = self.stored.read_rows(
                self.change.up, first - self.first_row, last - self.first_row
            )
            rows[first - start : last - start] += self._scale(_multiply(up, down))

    def add_to_embedding(self, rows: FloatArray, start: int) -> None:
        """Add to rows [n, hidden] of an embedding from token `start` on, in place."""
        up = self.stored.read(self.change.up)
        step = max(1, _RUN_ELEMENTS // rows.shape[1])
        for first in range(0, len(rows), step):
            last = min(first + step, len(rows))
            down = self.stored.read_columns(self.change.down, start + first, start + last)
            rows[first:last] += self._scale(_multiply(up, down)).T

    def add_to_bias(self, values: FloatArray, start: int) -> None:
        """Add to the values of a bias from value `start` on, in place."""
        for first, last in self._iterate_runs(self.change.bias, values, start):
            change = self.stored.read_rows(
                self.change.bias, first - self.first_row, last - self.first_row
            )
            values[first - start : last - start] += self._scale(change)

    def _iterate_runs(self, name: str, rows: FloatArray, start: int) -> Iterator[tuple[int, int]]:
        """Yield runs of those of the tensor's rows that the change has, in its numbering."""
        begin = max(start, self.first_row)
        end = min(start + len(rows), self.first_row + self.stored.tensors[name].shape[0])
        step = max(1, _RUN_ELEMENTS // (rows.shape[1] if rows.ndim > 1 else 1))
        for first in range(begin, end, step):
            yield first, min(first + step, end)

    def _scale(self, change: FloatArray) -> FloatArray:
        with np.errstate(over="ignore", invalid="ignore"):  # checked on the next line
            change *= np.float32(self.factor)
        if not np.isfinite(change).all():
            raise CheckpointError(
                f"{self.stored.weight_files[0].name}: the change of {self.change.module} has NaN "
                "or Inf; check the adapter's file and its weight."
            )
        return change


def _multiply(up: FloatArray, down: FloatArray) -> FloatArray:
    with np.errstate(over="ignore", invalid="ignore"):  # `_scale` checks the result
        product: FloatArray = up @ down
    return product
