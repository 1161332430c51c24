"""GPTQ in the format of AutoGPTQ and GPTQModel, which packs codes along inputs in 32-bit words.

The tensors are `qweight` [C * bits / 32, N], `qzeros` [groups, N * bits / 32], `scales` [groups, N]
and `g_idx` [C]. The first code of a word is in its lowest bits. `checkpoint_format` "gptq" stores
the zero points minus one, "gptq_v2" stores them unchanged.
Source: AutoGPTQ's `qlinear_cuda_old.py` and GPTQModel's `nn_modules/qlinear/__init__.py`, `pack`
and `dequantize_weight`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

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
from glm_export.checkpoint.prequantized.settings import (
    find_matches,
    read_bits,
    read_group_size,
    read_object,
    require_name,
)
from glm_export.errors import CheckpointError, UnsupportedModelError
from glm_export.model.architectures.description import read_flag, require_value
from glm_quantize import Scheme
from glm_quantize.codes import ByteArray

METHOD = "gptq"
_PARTS = ("qweight", "qzeros", "scales", "g_idx")


@dataclass(frozen=True)
class _Settings:
    """Settings of one linear layer in config.json."""

    bits: int
    group_size: int
    has_order: bool
    is_symmetric: bool
    stored_zero_offset: int  # subtracted from a zero point before it is stored

    @property
    def max_code(self) -> int:
        return (1 << self.bits) - 1


@dataclass(frozen=True)
class GptqFormat:
    """quantization_config with `quant_method` gptq."""

    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check the settings."""
        _read_settings(self.settings)

    @property
    def method(self) -> str:
        """The `quant_method`."""
        return METHOD

    def is_quantized(self, checkpoint: Checkpoint, prefix: str) -> bool:
        """Return True if the checkpoint has a qweight, qzeros, scales or g_idx with this prefix."""
        return any(f"{prefix}.{part}" in checkpoint.tensors for part in _PARTS)

    def open_linear(
        self, checkpoint: Checkpoint, prefix: str, shape: tuple[int, int]
    ) -> QuantizedLinear:
        """Check a linear layer's tensors and determine its scheme; see `PrequantizedFormat`."""
        settings = self._read_settings_of(checkpoint, prefix)
        layout = lay_out_groups(prefix, shape[1], settings.group_size)
        parts = _list_parts(checkpoint, prefix, shape, settings, layout)
        check_parts(checkpoint, parts, METHOD)
        layout = sort_inputs(checkpoint, f"{prefix}.g_idx", layout)
        reader = _Reader(checkpoint, prefix, shape, settings)
        is_symmetric = _settle_symmetry(reader.read_stored_zeros(0, shape[0]), prefix, settings)
        scheme = Scheme(settings.bits, layout.block_size, is_symmetric)
        return QuantizedLinear(prefix, shape[0], parts, layout, scheme, reader.read_groups)

    def _read_settings_of(self, checkpoint: Checkpoint, prefix: str) -> _Settings:
        """Apply the first entry of GPTQModel's `dynamic` whose expression matches the module."""
        dynamic = read_object(self.settings, "dynamic")
        used = {key: key.removeprefix("+:") for key in dynamic if not key.startswith("-:")}
        found = find_matches(used.values(), checkpoint)
        for key, pattern in used.items():
            if prefix in found[pattern]:
                changes = read_object({f"dynamic {key}": dynamic[key]}, f"dynamic {key}")
                return _read_settings({**self.settings, **changes})
        return _read_settings(self.settings)


@dataclass(frozen=True)
class _Reader:
    """Reads outputs, which are columns of the stored tensors."""

    checkpoint: Checkpoint
    prefix: str
    shape: tuple[int, int]
    settings: _Settings

    def read_groups(self, start: int, stop: int) -> GroupedRows:
        bits, inputs = self.settings.bits, self.shape[1]
        words = self.checkpoint.read_raw_columns(f"{self.prefix}.qweight", start, stop)
        codes = unpack_along_column(words, bits, inputs)
        scales = self.checkpoint.read_columns(f"{self.prefix}.scales", start, stop)
        zeros = self.read_stored_zeros(start, stop) + np.uint8(self.settings.stored_zero_offset)
        return GroupedRows(codes, scales.T, zeros.T)

    def read_stored_zeros(self, start: int, stop: int) -> ByteArray:
        """Read the stored zero points of outputs start ... stop, [groups, stop - start]."""
        bits = self.settings.bits
        per_word = WORD_BITS // bits
        first = start // per_word
        name = f"{self.prefix}.qzeros"
        words = self.checkpoint.read_raw_columns(name, first, count_words(stop, bits))
        zeros = unpack_along_row(words, bits, stop - first * per_word)
        return zeros[:, start - first * per_word :]


def _read_settings(settings: Mapping[str, Any]) -> _Settings:
    bits = read_bits(settings, "bits", 4, 8)
    format_key = "format" if settings.get("checkpoint_format") is None else "checkpoint_format"
    require_name(settings, format_key, "gptq", "gptq_v2")
    require_name(settings, "pack_dtype", "int32")
    require_value(settings, "is_marlin_format", False)
    for key in (
        "adapter",
        "rotation",
        "activation",
    ):  # GPTQModel computes these in addition to the weights
        require_value(settings, key)
    stored_format = settings.get(format_key) or "gptq"
    return _Settings(
        bits=bits,
        group_size=read_group_size(settings),
        has_order=read_flag(settings, "desc_act", False),
        is_symmetric=read_flag(settings, "sym", True),
        stored_zero_offset=1 if stored_format.lower() == "gptq" else 0,
    )


def _list_parts(
    checkpoint: Checkpoint,
    prefix: str,
    shape: tuple[int, int],
    settings: _Settings,
    layout: GroupLayout,
) -> tuple[StoredPart, ...]:
    rows, inputs = shape
    bits, groups = settings.bits, layout.num_groups
    parts = [
        StoredPart(f"{prefix}.qweight", WORDS, (count_words(inputs, bits), rows)),
        StoredPart(f"{prefix}.qzeros", WORDS, (groups, count_words(rows, bits))),
        StoredPart(f"{prefix}.scales", FLOATS, (groups, rows)),
    ]
    if settings.has_order or f"{prefix}.g_idx" in checkpoint.tensors:
        parts.append(StoredPart(f"{prefix}.g_idx", ("I32", "I64"), (inputs,)))
    return tuple(parts)


def _settle_symmetry(stored: ByteArray, prefix: str, settings: _Settings) -> bool:
    """Return True if every zero point is the kernels' default.

    Raises:
        UnsupportedModelError: a zero point is one above the largest code.
        CheckpointError: all zero points are one off the default, although `sym` is true.
    """
    bits, offset = settings.bits, settings.stored_zero_offset
    if offset and stored.max() == settings.max_code:
        group, output = np.argwhere(stored == settings.max_code)[0]
        raise UnsupportedModelError(
            f"{prefix}.qzeros stores {settings.max_code} for group {group} of output {output}, "
            f"zero point {settings.max_code + 1} in checkpoint_format gptq, which {bits} bits do "
            "not hold; use a checkpoint with sym true, or one in checkpoint_format gptq_v2."
        )
    default = 1 << (bits - 1)
    other_offset = 1 - offset
    if settings.is_symmetric and (stored == default - other_offset).all():
        names = ("gptq_v2", "gptq")
        raise CheckpointError(
            f"{prefix}.qzeros stores {stored.flat[0]} everywhere, which would be right for "
            f"sym true in checkpoint_format {names[other_offset]}, but config.json says "
            f"{names[offset]}; correct checkpoint_format in config.json."
        )
    return bool((stored == default - offset).all())
