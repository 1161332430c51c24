"""The PyTorch decoder run layer by layer: memory is one layer plus activations, never the model.

It is the yardstick of `verify.py` and `evaluate.py`, and computes in float32 whatever the
checkpoint's type. Tests hold it to transformers' own classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glm_export.checkpoint.parameters import ParameterRows
from glm_export.checkpoint.prequantized import restore_order
from glm_export.checkpoint.source_model import SourceModel
from glm_export.model import operators
from glm_export.model.architectures import DecoderConfig
from glm_export.model.decoder import DecoderLayer
from glm_export.model.rotary import rotation_tables
from glm_export.plan.plan import NUMPY_DTYPES, ExportPlan, TensorPlan
from glm_quantize import FloatArray, PackedRows, dequantize, unpack_rows

TokenArray = npt.NDArray[np.int64]
ReadParameter = Callable[[str], FloatArray]
ObserveState = Callable[[int, Tensor], object]
# Rows of a batch that pass a layer together: bounds what attention and MLP need besides weights.
_ROWS_AT_ONCE = 4


@dataclass(frozen=True)
class ReferenceDecoder:
    """A GLM decoder whose parameters are read when they are needed.

    Attributes:
        config: its shape.
        read: parameter name -> float32 values.
    """

    config: DecoderConfig
    read: ReadParameter

    @torch.inference_mode()
    def hidden_states(self, input_ids: TokenArray, observe: ObserveState | None = None) -> Tensor:
        """Final hidden states, normalised, ready for the head.

        Args:
            input_ids: [B, S]; every row starts at position 0.
            observe: called with 0 and the embedding's output, then i and layer i's, [B, S, C].

        Returns:
            [B, S, C] float32.
        """
        ids = torch.from_numpy(input_ids)
        table = self._read_tensor("embed_tokens.weight")
        x = operators.embed(table, ids)
        del table
        if observe is not None:
            observe(0, x)
        tables = rotation_tables(self.config, ids.shape[1])
        cos, sin = (torch.from_numpy(part) for part in tables)
        positions = operators.locate_positions(torch.ones_like(ids), cos, sin)
        for index in range(self.config.num_layers):
            layer = load_layer(self.config, self.read, index)
            groups = [x[start : start + _ROWS_AT_ONCE] for start in range(0, len(x), _ROWS_AT_ONCE)]
            x = torch.cat([layer(rows, self._no_past(rows), positions)[0] for rows in groups])
            if observe is not None:
                observe(index + 1, x)
        weight = self._read_tensor("norm.weight")
        return operators.rms_norm(x, weight, self.config.rms_norm_epsilon)

    def read_head(self) -> Tensor:
        """The head [V, C], which is the embedding in tied models."""
        return self._read_tensor("embed_tokens.weight" if self.config.is_tied else "lm_head.weight")

    def _no_past(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        empty = torch.empty(len(rows), self.config.num_kv_heads, 0, self.config.head_dim)
        return empty, empty

    def _read_tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.read(name))


def load_layer(config: DecoderConfig, read: ReadParameter, index: int) -> DecoderLayer:
    """One layer with its float32 values, the only one that this call keeps in memory."""
    with torch.device("meta"):
        layer = DecoderLayer(config)
    names = layer.state_dict()
    state = {name: torch.from_numpy(read(f"layers.{index}.{name}")) for name in names}
    layer.load_state_dict(state, assign=True)
    return layer


def read_from_source(source: SourceModel) -> ReadParameter:
    """Parameters as the checkpoint has them, dequantized where it is quantized already."""
    rows = ParameterRows(source.checkpoint, source.parameters)

    def read(name: str) -> FloatArray:
        if name in source.matrices:
            return source.matrices[name].read_weight()
        return rows.read(name)

    return read


def read_from_folder(plan: ExportPlan, data_path: Path) -> ReadParameter:
    """Parameters as an exported data file has them, dequantized."""

    def read(name: str) -> FloatArray:
        return read_stored(plan.tensors[name], data_path)

    return read


def read_stored(tensor: TensorPlan, data_path: Path) -> FloatArray:
    """One parameter out of a data file, as float32."""
    parts = []
    for segment in tensor.segments:
        dtype = np.dtype(NUMPY_DTYPES[segment.dtype])
        count = segment.size_bytes // dtype.itemsize
        flat = np.fromfile(data_path, dtype, count, offset=segment.offset_bytes)
        parts.append(flat.reshape(segment.shape))
    if tensor.scheme is None:
        return parts[0].astype(np.float32)
    packed = PackedRows(
        parts[0].astype(np.uint8, copy=False),
        parts[1].astype(np.float32),
        parts[2].astype(np.uint8, copy=False) if parts[2:] else None,
    )
    weight = dequantize(unpack_rows(packed, tensor.scheme))
    return restore_order(weight, tensor.matrix.order if tensor.matrix else None)
