"""A checkpoint's groups of inputs, expressed as the kernels' blocks, exactly.

Kernels know few block sizes and one block after the other. A larger group becomes several blocks
with the same scale; groups of scattered inputs (activation order) become adjacent once the inputs
are permuted, W x = W[:, order] x[order].
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.errors import UnsupportedModelError
from glm_quantize import FloatArray, QuantizedRows, Scheme
from glm_quantize.codes import ByteArray
from glm_quantize.scheme import SUPPORTED_BLOCK_SIZES

IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GroupedRows:
    """Rows as a checkpoint holds them: weight = (code - zero point) * scale of its group.

    Attributes:
        codes: [N, C] uint8, inputs in the model's order.
        scales: [N, groups] float32.
        zero_points: [N, groups] uint8, or None where the format has none.
    """

    codes: ByteArray
    scales: FloatArray
    zero_points: ByteArray | None


@dataclass(frozen=True, eq=False)
class GroupLayout:
    """Which group each input belongs to, in the checkpoint and for the kernels.

    Attributes:
        inputs: C.
        group_size: inputs of one group; the last group may have fewer.
        block_size: divides both.
        order: [C], the inputs sorted by group, or None where they are stored that way.
    """

    inputs: int
    group_size: int
    block_size: int
    order: IndexArray | None

    @property
    def num_groups(self) -> int:
        """Scales of one row in the checkpoint."""
        return -(-self.inputs // self.group_size)

    def arrange(self, rows: GroupedRows, scheme: Scheme) -> QuantizedRows:
        """Sort the inputs, give every block its group's scale and zero point."""
        codes = rows.codes if self.order is None else np.take(rows.codes, self.order, axis=1)
        groups = np.arange(0, self.inputs, self.block_size) // self.group_size
        zero_points = None
        if not scheme.is_symmetric:
            assert rows.zero_points is not None
            zero_points = rows.zero_points[:, groups]
        return QuantizedRows(scheme, codes, rows.scales[:, groups], zero_points)


def lay_out_groups(prefix: str, inputs: int, group_size: int) -> GroupLayout:
    """The largest blocks that hold no input of two groups.

    Args:
        prefix: of the linear, for the message.
        inputs: C.
        group_size: as config.json says it; -1 is one group for the whole row.

    Raises:
        UnsupportedModelError: no block size divides both.
    """
    group_size = inputs if group_size == -1 else min(group_size, inputs)
    for block_size in sorted(SUPPORTED_BLOCK_SIZES, reverse=True):
        if group_size % block_size == 0 and inputs % block_size == 0:
            return GroupLayout(inputs, group_size, block_size, None)
    sizes = ", ".join(str(size) for size in SUPPORTED_BLOCK_SIZES)
    raise UnsupportedModelError(
        f"{prefix} has {inputs} inputs in groups of {group_size}; the kernels compute blocks of "
        f"{sizes}, one of which must divide both: take a checkpoint with another group_size."
    )


def sort_inputs(checkpoint: Checkpoint, name: str, layout: GroupLayout) -> GroupLayout:
    """The layout with the order that a tensor of group indices asks for.

    Args:
        checkpoint: may hold the tensor or not.
        name: of the tensor: [C], the group of each input.
        layout: how many inputs a group must have.

    Returns:
        The same layout where the tensor is absent, or counts 0, 0, ... 1, 1, ... already.

    Raises:
        UnsupportedModelError: a group has more or fewer inputs than the others.
    """
    if name not in checkpoint.tensors:
        return layout
    groups = checkpoint.read_integers(name)
    expected = np.arange(layout.inputs) // layout.group_size
    if np.array_equal(groups, expected):
        return layout
    order = np.argsort(groups, kind="stable")
    differing = np.flatnonzero(groups[order] != expected)
    if len(differing):
        group = min(groups[order][differing[0]], expected[differing[0]])
        raise UnsupportedModelError(
            f"{name} puts {np.count_nonzero(groups == group)} inputs into group {group} where "
            f"{np.count_nonzero(expected == group)} are expected; the kernels know groups of one "
            "size only: check config.json's group_size, or take a checkpoint without desc_act."
        )
    return replace(layout, order=order)
