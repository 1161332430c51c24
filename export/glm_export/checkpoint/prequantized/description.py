"""The interface of the pre-quantized formats: a matrix's tensors, its scheme, and its rows.

Codes are copied, never computed from floats. The file of a format names and unpacks the tensors;
`grouping.py` converts the groups of the checkpoint to the blocks of the kernels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.prequantized.grouping import GroupedRows, GroupLayout
from glm_export.checkpoint.prequantized.scaled import DequantizedWeight
from glm_export.errors import CheckpointError
from glm_quantize import QuantizedRows, Scheme

FLOATS = ("F32", "F16", "BF16")
WORDS = ("I32",)
# A few megabytes of codes at a time, so that each read of a stored row has 100 bytes or more.
_CHUNK_ELEMENTS = 1 << 23
_ROWS_OF_A_WORD = 8  # a word holds up to eight rows if the format packs along outputs


@dataclass(frozen=True)
class StoredPart:
    """Expected name, shape and types of one tensor of a quantized weight."""

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class QuantizedLinear:
    """A linear layer's weight [N, C] that the checkpoint holds as integers.

    Attributes:
        prefix: start of its tensors' names, for example `model.layers.0.mlp.down_proj`.
        rows: N.
        parts: its tensors, which were found with these shapes.
        layout: mapping of its groups to blocks, and the order of its inputs.
        scheme: scheme in which the kernels compute it.
        read_groups: function that reads rows start ... stop in the checkpoint's layout.
    """

    prefix: str
    rows: int
    parts: tuple[StoredPart, ...]
    layout: GroupLayout
    scheme: Scheme
    read_groups: Callable[[int, int], GroupedRows]

    def read_rows(self, start: int, stop: int) -> QuantizedRows:
        """Read rows start ... stop for the kernels, with inputs in the order of `layout.order`.

        Raises:
            CheckpointError: a file ends too early or cannot be read.
        """
        return self.layout.arrange(self.read_groups(start, stop), self.scheme)

    def iterate_chunks(self) -> Iterator[tuple[int, int]]:
        """Yield row ranges of about eight million codes each, in order."""
        step = _CHUNK_ELEMENTS // self.layout.inputs // _ROWS_OF_A_WORD * _ROWS_OF_A_WORD
        step = max(_ROWS_OF_A_WORD, step)
        for start in range(0, self.rows, step):
            yield start, min(start + step, self.rows)


@runtime_checkable
class ScaledFormat(Protocol):
    """The settings of a `quant_method` that stores 8-bit or 4-bit numbers with scales.

    No kernel computes with them, so they are dequantized and quantized anew.
    """

    @property
    def method(self) -> str:
        """The `quant_method`."""

    def open_scaled(
        self, checkpoint: Checkpoint, prefix: str, shape: tuple[int, int]
    ) -> DequantizedWeight | None:
        """Open a linear layer's weight; return None if it is stored in another way.

        Args:
            checkpoint: checkpoint that holds the tensors.
            prefix: start of the tensors' names.
            shape: [N, C] that the architecture requires.

        Raises:
            CheckpointError: a tensor is missing, or contradicts config.json.
        """


@runtime_checkable
class PrequantizedFormat(Protocol):
    """The settings of a `quant_method` that stores integers with which the kernels compute."""

    @property
    def method(self) -> str:
        """The `quant_method`."""

    def is_quantized(self, checkpoint: Checkpoint, prefix: str) -> bool:
        """Return True if the checkpoint has any of the format's tensors for a linear layer."""

    def open_linear(
        self, checkpoint: Checkpoint, prefix: str, shape: tuple[int, int]
    ) -> QuantizedLinear:
        """Check a linear layer's tensors and determine its scheme, without reading the codes.

        Args:
            checkpoint: checkpoint that holds the tensors.
            prefix: start of the tensors' names.
            shape: [N, C] that the architecture requires.

        Raises:
            CheckpointError: a tensor is missing, or contradicts config.json.
            UnsupportedModelError: no kernel supports it; the message says why.
        """


def check_parts(checkpoint: Checkpoint, parts: tuple[StoredPart, ...], method: str) -> None:
    """Check that the checkpoint has every part with its shape and type.

    Raises:
        CheckpointError: a part is missing or differs; the message names both shapes or types.
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
