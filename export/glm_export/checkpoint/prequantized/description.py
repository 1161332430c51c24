"""What a pre-quantized format says of a matrix: its tensors, its scheme, and how rows are read.

Codes are taken over as they are, never computed from floats. Each format's file names its tensors
and unpacks them; `grouping.py` turns a checkpoint's groups into the kernels' blocks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.prequantized.grouping import GroupedRows, GroupLayout
from glm_export.errors import CheckpointError
from glm_quantize import QuantizedRows, Scheme

FLOATS = ("F32", "F16", "BF16")
WORDS = ("I32",)
# Codes of a few megabytes at a time: a piece of a stored row then has some hundred bytes or more.
_CHUNK_ELEMENTS = 1 << 23
_ROWS_OF_A_WORD = 8  # formats that pack along outputs hold up to eight rows in a word


@dataclass(frozen=True)
class StoredPart:
    """One of the tensors that stand in a checkpoint in place of a weight."""

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class QuantizedLinear:
    """A matrix [N, C] that the checkpoint holds as integers.

    Attributes:
        prefix: what its tensors' names begin with, `model.layers.0.mlp.down_proj`.
        rows: N.
        parts: the tensors it consists of; all were found with these shapes.
        layout: how its groups become blocks, and in which order its inputs are stored.
        scheme: what the kernels compute it with.
        read_groups: rows start ... stop as the checkpoint has them.
    """

    prefix: str
    rows: int
    parts: tuple[StoredPart, ...]
    layout: GroupLayout
    scheme: Scheme
    read_groups: Callable[[int, int], GroupedRows]

    def read_rows(self, start: int, stop: int) -> QuantizedRows:
        """Rows start ... stop for the kernels, inputs in the order of `layout.order`.

        Raises:
            CheckpointError: a file ends too early or cannot be read.
        """
        return self.layout.arrange(self.read_groups(start, stop), self.scheme)

    def iterate_chunks(self) -> Iterator[tuple[int, int]]:
        """Row ranges of about eight million codes each, in order."""
        step = _CHUNK_ELEMENTS // self.layout.inputs // _ROWS_OF_A_WORD * _ROWS_OF_A_WORD
        step = max(_ROWS_OF_A_WORD, step)
        for start in range(0, self.rows, step):
            yield start, min(start + step, self.rows)


class PrequantizedFormat(Protocol):
    """What config.json's quantization_config says, as one `quant_method` understands it."""

    @property
    def method(self) -> str:
        """The `quant_method`."""

    def is_quantized(self, checkpoint: Checkpoint, prefix: str) -> bool:
        """True if any of the format's tensors is there for a linear; it may still be incomplete."""

    def open_linear(
        self, checkpoint: Checkpoint, prefix: str, shape: tuple[int, int]
    ) -> QuantizedLinear:
        """Check a linear's tensors and settle its scheme; reads zero points and indices only.

        Args:
            checkpoint: where its tensors are.
            prefix: of their names.
            shape: [N, C], as the architecture wants it.

        Raises:
            CheckpointError: a tensor is missing, or is not what config.json makes it.
            UnsupportedModelError: no kernel computes it; the message says why.
        """


def check_parts(checkpoint: Checkpoint, parts: tuple[StoredPart, ...], method: str) -> None:
    """Every part is there, with its shape and type.

    Raises:
        CheckpointError: names the tensor and both shapes or types.
    """
    for part in parts:
        found = checkpoint.tensors.get(part.name)
        if found is None:
            raise CheckpointError(
                f"{part.name} {list(part.shape)} is missing, which {method} needs; check that all "
                f"weight files are in {checkpoint.folder} and belong to this config.json."
            )
        if found.dtype not in part.dtypes:
            raise CheckpointError(
                f"{part.name} has dtype {found.dtype} where {method} needs "
                f"{' or '.join(part.dtypes)}; check that config.json belongs to these weights."
            )
        if found.shape != part.shape:
            raise CheckpointError(
                f"{part.name} is {list(found.shape)} but config.json makes it {list(part.shape)}; "
                "check quantization_config, and that both come from the same revision."
            )
