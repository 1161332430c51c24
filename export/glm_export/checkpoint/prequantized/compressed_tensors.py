"""compressed-tensors: "pack-quantized" integers, and 8-bit floats and integers with scales.

The tensors of pack-quantized, which packs codes in 32-bit words by rows, are `weight_packed`
[N, C * bits / 32], `weight_scale` [N, groups], `weight_shape` with N and C, and optionally
`weight_zero_point` [N * bits / 32, groups], which is packed along outputs, and `weight_g_idx` [C].
Codes and zero points are signed; 2^(bits - 1) is added before they are stored. The other formats
store `weight` [N, C] and `weight_scale` for a tensor, a row, a group or a block.
Source: compressed-tensors' `compressors/` and, for `weight_g_idx`, which its version 0.20 no longer
writes, `quantization/lifecycle/forward.py` of version 0.9.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.prequantized.description import (
    FLOATS,
    WORDS,
    QuantizedLinear,
    StoredPart,
    check_parts,
)
from glm_export.checkpoint.prequantized.grouping import (
    GroupedRows,
    GroupLayout,
    lay_out_groups,
    sort_inputs,
)
from glm_export.checkpoint.prequantized.packed_words import (
    WORD_BITS,
    count_words,
    unpack_along_column,
    unpack_along_row,
)
from glm_export.checkpoint.prequantized.scaled import (
    SCALED_DTYPES,
    DequantizedWeight,
    ScaledWeight,
    check_scaled,
)
from glm_export.checkpoint.prequantized.settings import (
    find_matches,
    read_bits,
    read_block,
    read_group_size,
    read_object,
    require_name,
)
from glm_export.errors import CheckpointError, UnsupportedModelError
from glm_export.model.architectures.description import read_flag, require_value
from glm_quantize import Scheme
from glm_quantize.codes import ByteArray

METHOD = "compressed-tensors"
_PACKED = "pack-quantized"
_SCALED = ("float-quantized", "naive-quantized", "int-quantized")
_MIXED = "mixed-precision"  # each group names its own
_PARTS = ("weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape")
_ACTIVATION_PARTS = ("input_scale", "input_zero_point")  # activations stay floats here
_CLASS = "Linear"
_PATTERN = "re:"  # before a regular expression


@dataclass(frozen=True)
class _Group:
    """An entry of config_groups: the linear layers it applies to, and their settings.

    `block` is the rows and columns that share a scale, where 0 stands for all; None for packed
    integers.
    """

    targets: tuple[str, ...]
    bits: int
    group_size: int
    is_symmetric: bool
    has_order: bool
    block: tuple[int, int] | None = None


@dataclass(frozen=True)
class CompressedTensorsFormat:
    """quantization_config with `quant_method` compressed-tensors."""

    groups: tuple[_Group, ...]

    @property
    def method(self) -> str:
        """The `quant_method`."""
        return METHOD

    def is_quantized(self, checkpoint: Checkpoint, prefix: str) -> bool:
        """Return True if the checkpoint has any tensor of packed integers with this prefix."""
        if _is_scaled(checkpoint, prefix):
            return False
        return any(f"{prefix}.{part}" in checkpoint.tensors for part in _PARTS)

    def open_scaled(
        self, checkpoint: Checkpoint, prefix: str, shape: tuple[int, int]
    ) -> DequantizedWeight | None:
        """Open a linear layer of 8-bit numbers with scales; see `ScaledFormat`."""
        if not _is_scaled(checkpoint, prefix):
            return None
        block = self._find_group(checkpoint, prefix).block
        if block is None:
            raise CheckpointError(
                f"{prefix}.weight has dtype {checkpoint.tensors[f'{prefix}.weight'].dtype}, but "
                f"config.json says format={_PACKED!r} for it; check that config.json belongs to "
                "these weights."
            )
        weight = ScaledWeight(
            checkpoint,
            f"{prefix}.weight",
            f"{prefix}.weight_scale",
            (block[0] or shape[0], block[1] or shape[1]),
            tuple(f"{prefix}.{part}" for part in _ACTIVATION_PARTS),
        )
        check_scaled(weight, shape, METHOD)
        return weight.dequantize()

    def open_linear(
        self, checkpoint: Checkpoint, prefix: str, shape: tuple[int, int]
    ) -> QuantizedLinear:
        """Check a linear layer's tensors and determine its scheme; see `PrequantizedFormat`."""
        group = self._find_group(checkpoint, prefix)
        layout = lay_out_groups(prefix, shape[1], group.group_size)
        parts = _list_parts(checkpoint, prefix, shape, group, layout)
        check_parts(checkpoint, parts, METHOD)
        _check_shape(checkpoint, f"{prefix}.weight_shape", shape)
        layout = sort_inputs(checkpoint, f"{prefix}.weight_g_idx", layout)
        scheme = Scheme(group.bits, layout.block_size, group.is_symmetric)
        reader = _Reader(checkpoint, prefix, shape[1], group)
        return QuantizedLinear(prefix, shape[0], parts, layout, scheme, reader.read_groups)

    def _find_group(self, checkpoint: Checkpoint, prefix: str) -> _Group:
        """Find the entry as the library does: by module name, then by expression, then by class."""
        targets = {target for group in self.groups for target in group.targets}
        patterns = {one: one.removeprefix(_PATTERN) for one in targets if one.startswith(_PATTERN)}
        found = find_matches(sorted(patterns.values()), checkpoint)
        described = {one for one, pattern in patterns.items() if prefix in found[pattern]}
        for wanted in ({prefix}, described, {_CLASS}):
            for group in self.groups:
                if wanted.intersection(group.targets):
                    return group
        raise CheckpointError(
            f"{prefix} is stored as {METHOD} but none of config.json's config_groups targets it; "
            "check that config.json belongs to these weights."
        )


@dataclass(frozen=True)
class _Reader:
    """Reads outputs, which are rows of codes and scales but packed columns of zero points."""

    checkpoint: Checkpoint
    prefix: str
    inputs: int
    group: _Group

    def read_groups(self, start: int, stop: int) -> GroupedRows:
        words = self.checkpoint.read_raw_rows(f"{self.prefix}.weight_packed", start, stop)
        codes = unpack_along_row(words, self.group.bits, self.inputs)
        scales = self.checkpoint.read_rows(f"{self.prefix}.weight_scale", start, stop)
        zeros = None if self.group.is_symmetric else self._read_zero_points(start, stop)
        return GroupedRows(codes, scales, zeros)

    def _read_zero_points(self, start: int, stop: int) -> ByteArray:
        bits = self.group.bits
        per_word = WORD_BITS // bits
        first, name = start // per_word, f"{self.prefix}.weight_zero_point"
        words = self.checkpoint.read_raw_rows(name, first, count_words(stop, bits))
        zeros = unpack_along_column(words, bits, stop - first * per_word)
        return zeros[:, start - first * per_word :].T


def read_format(settings: Mapping[str, Any]) -> CompressedTensorsFormat:
    """Read quantization_config.

    Raises:
        UnsupportedModelError: a value is not supported; the message names it.
    """
    require_name(settings, "format", _PACKED, *_SCALED, _MIXED)
    require_name(settings, "quantization_status", "compressed")
    require_value(settings, "kv_cache_scheme")
    require_value(settings, "transform_config", {})
    require_value(read_object(settings, "sparsity_config"), "format", "dense")
    groups = read_object(settings, "config_groups")
    if not groups:
        raise UnsupportedModelError(
            "config.json's quantization_config has no config_groups; "
            "check that it is complete, or download it again."
        )
    common = settings.get("format") or _PACKED
    return CompressedTensorsFormat(tuple(_read_group(groups, name, common) for name in groups))


def _read_group(groups: Mapping[str, Any], name: str, common: str) -> _Group:
    group = read_object(groups, name)
    require_name(group, "format", _PACKED, *_SCALED)
    require_value(group, "output_activations")
    targets = group.get("targets")
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise UnsupportedModelError(
            f"config.json says targets={targets!r}; a list of names is needed: check config_groups."
        )
    weights = read_object(group, "weights")
    require_value(weights, "dynamic", False)
    chosen = group.get("format") or common
    if chosen.lower() in _SCALED:
        return _read_scaled_group(weights, tuple(targets))
    require_name({"format": chosen}, "format", _PACKED)
    require_value(group, "input_activations")
    require_name(weights, "type", "int")
    require_name(weights, "strategy", "group", "channel")
    order = weights.get("actorder") or None  # false means none
    require_name({"actorder": order}, "actorder", "weight", "static", "group", "dynamic")
    return _Group(
        targets=tuple(targets),
        bits=read_bits(weights, "num_bits", 4, 8),
        group_size=_read_group_size(weights),
        is_symmetric=read_flag(weights, "symmetric", True),
        has_order=order is not None and order.lower() in ("group", "dynamic"),
    )


def _read_scaled_group(weights: Mapping[str, Any], targets: tuple[str, ...]) -> _Group:
    require_name(weights, "type", "float", "int")
    require_name(weights, "strategy", "tensor", "channel", "group", "block")
    require_value(weights, "symmetric", True)
    bits = read_bits(weights, "num_bits", 8)
    block = _read_scaled_block(weights)
    return _Group(targets, bits, -1, is_symmetric=True, has_order=False, block=block)


def _read_scaled_block(weights: Mapping[str, Any]) -> tuple[int, int]:
    """Read rows and columns of a scale; without a strategy the group size tells it."""
    strategy = str(weights.get("strategy") or "").lower()
    if strategy == "tensor" or (not strategy and weights.get("group_size") is None):
        return 0, 0
    if strategy == "channel":
        return 1, 0
    if strategy == "block":
        return read_block(weights.get("block_structure"), "block_structure")
    return 1, max(0, read_group_size(weights))


def _is_scaled(checkpoint: Checkpoint, prefix: str) -> bool:
    tensor = checkpoint.tensors.get(f"{prefix}.weight")
    return tensor is not None and tensor.dtype in SCALED_DTYPES


def _read_group_size(weights: Mapping[str, Any]) -> int:
    if weights.get("strategy") == "channel":
        return -1
    return read_group_size(weights)


def _list_parts(
    checkpoint: Checkpoint,
    prefix: str,
    shape: tuple[int, int],
    group: _Group,
    layout: GroupLayout,
) -> tuple[StoredPart, ...]:
    rows, inputs = shape
    bits, groups = group.bits, layout.num_groups
    parts = [
        StoredPart(f"{prefix}.weight_packed", WORDS, (rows, count_words(inputs, bits))),
        StoredPart(f"{prefix}.weight_scale", FLOATS, (rows, groups)),
        StoredPart(f"{prefix}.weight_shape", ("I64", "I32"), (2,)),
    ]
    if not group.is_symmetric:
        packed = (count_words(rows, bits), groups)
        parts.append(StoredPart(f"{prefix}.weight_zero_point", WORDS, packed))
    if group.has_order or f"{prefix}.weight_g_idx" in checkpoint.tensors:
        parts.append(StoredPart(f"{prefix}.weight_g_idx", ("I32", "I64"), (inputs,)))
    return tuple(parts)


def _check_shape(checkpoint: Checkpoint, name: str, shape: tuple[int, int]) -> None:
    found = checkpoint.read_integers(name).tolist()
    if found != list(shape):
        raise CheckpointError(
            f"{name} says {found} but config.json makes it {list(shape)}; "
            "check that both come from the same revision."
        )
