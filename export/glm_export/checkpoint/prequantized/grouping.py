"""Exact conversion of a checkpoint's groups of inputs to the blocks of the kernels.

The kernels support few block sizes, and only blocks of adjacent inputs. A larger group becomes
several blocks with the same scale. Groups of scattered inputs (activation order) become adjacent by
permuting the inputs: W x = W[:, order] x[order].
"""

from dataclasses import dataclass, replace

import numpy as np

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.errors import UnsupportedModelError
from glm_quantize import FloatArray, QuantizedRows, Scheme
from glm_quantize.codes import ByteArray, IndexArray
from glm_quantize.scheme import SUPPORTED_BLOCK_SIZES


@dataclass(frozen=True, eq=False)
class GroupedRows:
    """Rows in the checkpoint's groups: weight = (code - zero point) * scale of its group.

    Attributes:
        codes: [N, C] uint8, inputs in the model's order.
        scales: [N, groups] float32.
        zero_points: [N, groups] uint8; None if the format has none.
    """

    codes: ByteArray
    scales: FloatArray
    zero_points: ByteArray | None


@dataclass(frozen=True, eq=False)
class GroupLayout:
    """The group of each input in the checkpoint, and the blocks for the kernels.

    Attributes:
        inputs: C.
        group_size: number of inputs in a group; the last group may have fewer.
        block_size: block size of the kernels, which divides both numbers.
        order: [C] inputs sorted by group; None if they are already sorted.
    """

    inputs: int
    group_size: int
    block_size: int
    order: IndexArray | None

    @property
    def num_groups(self) -> int:
        """Number of groups in a row."""
        return -(-self.inputs // self.group_size)

    def arrange(self, rows: GroupedRows, scheme: Scheme) -> QuantizedRows:
        """Sort the inputs by group, and give each block the scale and zero point of its group."""
        codes = rows.codes if self.order is None else np.take(rows.codes, self.order, axis=1)
        groups = np.arange(0, self.inputs, self.block_size) // self.group_size
        zero_points = None
        if not scheme.is_symmetric:
            assert rows.zero_points is not None
            zero_points = rows.zero_points[:, groups]
        return QuantizedRows(scheme, codes, rows.scales[:, groups], zero_points)


def lay_out_groups(prefix: str, inputs: int, group_size: int) -> GroupLayout:
    """Choose the largest block size such that no block has inputs of two groups.

    Args:
        prefix: name of the linear layer, for the error.
        inputs: C.
        group_size: group size from config.json; -1 means one group for the whole row.

    Raises:
        UnsupportedModelError: no supported block size divides both numbers.
    """
    group_size = inputs if group_size == -1 else min(group_size, inputs)
    for block_size in sorted(SUPPORTED_BLOCK_SIZES, reverse=True):
        if group_size % block_size == 0 and inputs % block_size == 0:
            return GroupLayout(inputs, group_size, block_size, None)
    sizes = ", ".join(str(size) for size in SUPPORTED_BLOCK_SIZES)
    raise UnsupportedModelError(
        f"{prefix} has {inputs} inputs in groups of {group_size}; the kernels compute blocks of "
        f"{sizes}, one of which must divide both: use a checkpoint with another group_size."
    )


def sort_inputs(checkpoint: Checkpoint, name: str, layout: GroupLayout) -> GroupLayout:
    """Add the order of inputs that a tensor of group indices requires to a layout.

    Args:
        checkpoint: checkpoint that may hold the tensor.
        name: name of the tensor [C] with the group of each input.
        layout: layout with the number of inputs in each group.

    Returns:
        The same layout if there is no such tensor, or if the inputs are already sorted by group.

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
            "size only: check config.json's group_size, or use a checkpoint without desc_act."
        )
    return replace(layout, order=order)
