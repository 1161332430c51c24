"""AWQ in AutoAWQ's "gemm" version, which packs the 4-bit codes of eight outputs in one word.

The tensors are `qweight` [C, N / 8], `qzeros` [groups, N / 8] and `scales` [groups, N]. The order
of the codes in a word is not the order of the outputs.
Source: AutoAWQ's `awq/modules/linear/gemm.py` and `awq/utils/packing_utils.py`.
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
from glm_export.checkpoint.prequantized.grouping import GroupedRows, lay_out_groups
from glm_export.checkpoint.prequantized.packed_words import unpack_awq
from glm_export.checkpoint.prequantized.settings import read_bits, read_group_size, require_name
from glm_export.errors import UnsupportedModelError
from glm_quantize import Scheme
from glm_quantize.codes import ByteArray

METHOD = "awq"
_PARTS = ("qweight", "qzeros", "scales")
_BITS = 4
_WORD_CODES = 8


@dataclass(frozen=True)
class AwqFormat:
    """quantization_config with `quant_method` awq."""

    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse other versions, which pack the codes differently."""
        read_bits(self.settings, "bits", _BITS)
        read_group_size(self.settings)
        for key in ("version", "format", "checkpoint_format"):
            require_name(self.settings, key, "gemm")

    @property
    def method(self) -> str:
        """The `quant_method`."""
        return METHOD

    def is_quantized(self, checkpoint: Checkpoint, prefix: str) -> bool:
        """Return True if the checkpoint has a qweight, qzeros or scales with this prefix."""
        return any(f"{prefix}.{part}" in checkpoint.tensors for part in _PARTS)

    def open_linear(
        self, checkpoint: Checkpoint, prefix: str, shape: tuple[int, int]
    ) -> QuantizedLinear:
        """Check a linear layer's tensors and determine its scheme; see `PrequantizedFormat`."""
        rows, inputs = shape
        if rows % _WORD_CODES:
            raise UnsupportedModelError(
                f"{prefix} has {rows} outputs, not a multiple of {_WORD_CODES} as {METHOD} needs; "
                "check that config.json belongs to these weights."
            )
        layout = lay_out_groups(prefix, inputs, read_group_size(self.settings))
        words, groups = rows // _WORD_CODES, layout.num_groups
        parts = (
            StoredPart(f"{prefix}.qweight", WORDS, (inputs, words)),
            StoredPart(f"{prefix}.qzeros", WORDS, (groups, words)),
            StoredPart(f"{prefix}.scales", FLOATS, (groups, rows)),
        )
        check_parts(checkpoint, parts, METHOD)
        reader = _Reader(checkpoint, prefix)
        zeros = reader.read_outputs("qzeros", 0, rows)
        is_symmetric = bool((zeros == 1 << (_BITS - 1)).all())
        scheme = Scheme(_BITS, layout.block_size, is_symmetric)
        return QuantizedLinear(prefix, rows, parts, layout, scheme, reader.read_groups)


@dataclass(frozen=True)
class _Reader:
    """Reads outputs, which are columns of the stored tensors."""

    checkpoint: Checkpoint
    prefix: str

    def read_groups(self, start: int, stop: int) -> GroupedRows:
        scales = self.checkpoint.read_columns(f"{self.prefix}.scales", start, stop)
        codes = self.read_outputs("qweight", start, stop)
        return GroupedRows(codes, scales.T, self.read_outputs("qzeros", start, stop))

    def read_outputs(self, part: str, start: int, stop: int) -> ByteArray:
        """Read outputs start ... stop of qweight or qzeros, [stop - start, C or groups]."""
        first, last = start // _WORD_CODES, -(-stop // _WORD_CODES)
        words = self.checkpoint.read_raw_columns(f"{self.prefix}.{part}", first, last)
        begin = first * _WORD_CODES
        return unpack_awq(words)[start - begin : stop - begin]
