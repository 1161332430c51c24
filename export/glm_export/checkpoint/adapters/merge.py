"""Merging adapters into a checkpoint, while its rows are read.

Calibration, the writer, verification and evaluation read rows from the checkpoint, so all of them
see the merged weights. Read `low_rank.py` before, which computes the rows.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from glm_export.checkpoint.adapters.low_rank import LowRankRows
from glm_export.checkpoint.adapters.open_adapter import LowRankChange, OpenAdapter
from glm_export.checkpoint.checkpoint import Checkpoint, ComputedTensor
from glm_export.checkpoint.split_sources import SplitNames
from glm_export.errors import CheckpointError, OptionsError, UnsupportedModelError
from glm_export.model.architectures import ParameterSource
from glm_quantize import FloatArray

AddRows = Callable[[FloatArray, int], None]
WEIGHT, _BIAS = ".weight", ".bias"
_EMBEDDING, _HEAD = "embed_tokens.weight", "lm_head.weight"
HEADS = ("lm_head.weight", "output_layer.weight")  # of `glm` and `glm4`, and of `chatglm`


@dataclass(frozen=True)
class MergeTarget:
    """The model into which adapters are merged.

    Attributes:
        shapes: shape of each tensor of the decoder by its name in the checkpoint.
        embedding: name of the embedding's tensor.
        is_tied: True if the head is the embedding.
        split_names: modules that some programs save in parts, see `Architecture.split_names`.
    """

    shapes: Mapping[str, tuple[int, ...]]
    embedding: str
    is_tied: bool
    split_names: SplitNames


@dataclass(frozen=True)
class _Place:
    """Where a change belongs: rows of one or several tensors, which have `shape` together."""

    shape: tuple[int, ...]
    first_rows: Mapping[str, int]


@dataclass(frozen=True)
class _Addition:
    """A change of a stored tensor, and the names of its own tensors in the adapter's file."""

    tensor: str
    add: AddRows
    parts: tuple[str, ...]


@dataclass(frozen=True)
class _SumOfRows:
    """Reads rows of a tensor and adds a change to them."""

    base: ComputedTensor
    add: AddRows

    def read(self, start: int, stop: int) -> FloatArray:
        rows = self.base.read_rows(start, stop)
        self.add(rows, start)
        return rows


def describe_target(
    parameters: Mapping[str, ParameterSource], split_names: SplitNames
) -> MergeTarget:
    """Describe the model with these sources of its parameters."""
    shapes = {name: shape for source in parameters.values() for name, shape in source.tensors}
    embedding = parameters[_EMBEDDING].tensors[0][0]
    return MergeTarget(shapes, embedding, _HEAD not in parameters, split_names)


def merge_adapters(
    checkpoint: Checkpoint, target: MergeTarget, adapters: Sequence[OpenAdapter]
) -> Checkpoint:
    """Return the checkpoint with adapters that are merged when rows are read.

    Raises:
        CheckpointError: an adapter does not fit the checkpoint.
        OptionsError: adapters cannot be combined as requested.
        UnsupportedModelError: an adapter changes one of two tied tensors.
    """
    merged: dict[str, ComputedTensor] = {}
    for adapter in adapters:
        merged |= _list_replaced(checkpoint, target, adapter, merged)
    for adapter in adapters:
        for addition in _list_additions(target, adapter):
            name = addition.tensor
            base = merged[name] if name in merged else _read_stored(checkpoint, name)
            origins = tuple((adapter.weight_file, part) for part in addition.parts)
            rows = _SumOfRows(base, addition.add)
            merged[name] = ComputedTensor(rows.read, base.origins + origins)
    return replace(checkpoint, computed={**checkpoint.computed, **merged})


def _read_stored(checkpoint: Checkpoint, name: str) -> ComputedTensor:
    def read_rows(start: int, stop: int) -> FloatArray:
        return checkpoint.read_rows(name, start, stop)

    return ComputedTensor(read_rows, checkpoint.list_origins(name))


def _list_replaced(
    checkpoint: Checkpoint,
    target: MergeTarget,
    adapter: OpenAdapter,
    others: Collection[str],
) -> dict[str, ComputedTensor]:
    """Return the tensors that an adapter replaces (modules_to_save, trained biases)."""
    found: dict[str, ComputedTensor] = {}
    for name, own in adapter.replaced.items():
        if _is_unchanged(checkpoint, target, name, adapter.stored, own):
            continue  # PEFT can save embedding and head with every adapter
        place = _locate(target, adapter, name, "")
        shape = adapter.stored.tensors[own].shape
        if shape != place.shape:
            raise _refuse_shape(adapter, own, shape, name, place.shape)
        if adapter.weight != 1:
            raise OptionsError(
                f"adapter {adapter.name} replaces {name}, which has no weight; give it without "
                f"the weight {adapter.weight:g}."
            )
        if name in others:
            raise OptionsError(
                f"two adapters replace {name}, the second is {adapter.name}; give one of them."
            )
        read_rows = _read_stored(adapter.stored, own).read_rows
        found[name] = ComputedTensor(read_rows, ((adapter.weight_file, own),))
    return found


def _is_unchanged(
    checkpoint: Checkpoint, target: MergeTarget, name: str, stored: Checkpoint, own: str
) -> bool:
    """Return True if an adapter's tensor has the values of the checkpoint's tensor."""
    base = target.embedding if target.is_tied and name.endswith(HEADS) else name
    if target.shapes.get(base) != stored.tensors[own].shape:
        return False
    return all(
        np.array_equal(checkpoint.read_rows(base, *rows), stored.read_rows(own, *rows))
        for rows in stored.iterate_chunks(own)
    )


def _list_additions(target: MergeTarget, adapter: OpenAdapter) -> Iterator[_Addition]:
    """Yield every low-rank change of an adapter, and its bias if it has one."""
    found: tuple[int, ...]
    for change in adapter.changes:
        down, up = (adapter.stored.tensors[name].shape for name in (change.down, change.up))
        found = (down[1], up[0]) if change.is_embedding else (up[0], down[1])
        for name, rows in _list_rows(target, adapter, change, WEIGHT, found):
            add = rows.add_to_embedding if change.is_embedding else rows.add_to_linear
            yield _Addition(name, add, (change.down, change.up))
        if not change.bias:
            continue
        found = adapter.stored.tensors[change.bias].shape
        for name, rows in _list_rows(target, adapter, change, _BIAS, found):
            yield _Addition(name, rows.add_to_bias, (change.bias,))


def _list_rows(
    target: MergeTarget,
    adapter: OpenAdapter,
    change: LowRankChange,
    kind: str,
    found: tuple[int, ...],
) -> Iterator[tuple[str, LowRankRows]]:
    """Yield each stored tensor that a change of shape `found` belongs to, and its rows there."""
    place = _locate(target, adapter, change.module, kind)
    if found != place.shape:
        raise _refuse_shape(adapter, change.module, found, change.module + kind, place.shape)
    factor = adapter.weight * adapter.settings.find_factor(change.module)
    for name, first_row in place.first_rows.items():
        yield name, LowRankRows(adapter.stored, change, factor, first_row)


def _locate(target: MergeTarget, adapter: OpenAdapter, module: str, kind: str) -> _Place:
    """Find the tensors of a module, which the checkpoint or the adapter may have in parts."""
    name = module + kind
    is_kept_tied = adapter.settings.is_tied and name == target.embedding
    is_one_of_two = target.is_tied and (name == target.embedding or name.endswith(HEADS))
    if is_one_of_two and not is_kept_tied:
        raise UnsupportedModelError(
            f"adapter {adapter.name} changes {name}, but the model ties its head to its embedding "
            "and only one of them would change; use an adapter that changes neither."
        )
    if name in target.shapes:
        return _Place(target.shapes[name], {name: 0})
    for whole, parts in target.split_names.items():
        place = _find_parts(target, module, kind, whole, parts)
        place = place or _find_whole(target, module, kind, whole, parts)
        if place is not None:
            return place
    first = target.embedding.partition(".")[0]
    if f"{first}.{name}" in target.shapes:
        raise CheckpointError(
            f"adapter {adapter.name} changes {name}, which is {first}.{name} in this model: the "
            "adapter was trained on the model without its head (task_type FEATURE_EXTRACTION); "
            f"rename its tensors from base_model.model. to base_model.model.{first}., or train it "
            "with AutoModelForCausalLM."
        )
    base = adapter.base_model
    raise CheckpointError(
        f"adapter {adapter.name} changes {name}, which this model does not have; check that it "
        f"was trained on this checkpoint{f' (it names {base!r})' if base else ''}."
    )


def _find_parts(
    target: MergeTarget, module: str, kind: str, whole: str, parts: tuple[str, ...]
) -> _Place | None:
    """The adapter has one change for parts that the checkpoint stores one by one."""
    names = [module.removesuffix(whole) + part + kind for part in parts]
    if not module.endswith(f".{whole}") or not all(name in target.shapes for name in names):
        return None
    shapes = [target.shapes[name] for name in names]
    starts = [-sum(shape[0] for shape in shapes[:index]) for index in range(len(shapes))]
    rows = sum(shape[0] for shape in shapes)
    return _Place((rows, *shapes[0][1:]), dict(zip(names, starts, strict=True)))


def _find_whole(
    target: MergeTarget, module: str, kind: str, whole: str, parts: tuple[str, ...]
) -> _Place | None:
    """The adapter has a change for one part of what the checkpoint stores as one tensor."""
    for index, part in enumerate(parts):
        name = module.removesuffix(part) + whole + kind
        if module.endswith(f".{part}") and name in target.shapes:
            rows = target.shapes[name][0] // len(parts)
            return _Place((rows, *target.shapes[name][1:]), {name: index * rows})
    return None


def _refuse_shape(
    adapter: OpenAdapter,
    own: str,
    found: tuple[int, ...],
    name: str,
    expected: tuple[int, ...],
) -> CheckpointError:
    return CheckpointError(
        f"adapter {adapter.name}: {own} is for {list(found)} but {name} is {list(expected)}; "
        "check that the adapter was trained on this checkpoint."
    )
