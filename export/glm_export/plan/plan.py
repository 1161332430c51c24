"""Which parameter gets which scheme, and where each byte goes: all known before any work.

Read `architectures/` before, `passes/` (what the graph then looks like) and `writer.py` after.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from glm_export.checkpoint.prequantized import QuantizedMatrix
from glm_export.errors import OptionsError
from glm_export.model.architectures import DecoderConfig, ParameterSource
from glm_export.model.rotary import is_factored, list_tables
from glm_quantize import Scheme, SchemeError

# Large tensors start on a memory page, so that a host may map them; small ones on a cache line.
_PAGE_BYTES = 4096
_CACHE_LINE_BYTES = 64
_LARGE_BYTES = 1 << 20
NUMPY_DTYPES: Mapping[str, npt.DTypeLike] = MappingProxyType(
    {"fp32": "<f4", "fp16": "<f2", "uint8": "u1", "int32": "<i4"}
)
# Modules that compute in the wide type; see `decoder.py`. Norms end in "norm".
_WIDE_MODULES = ("o_proj", "down_proj", "norm")


@dataclass(frozen=True)
class Segment:
    """One run of bytes in the data file.

    Attributes:
        name: initializer name.
        dtype: "fp32", "fp16" or "uint8".
        shape: row-major dimensions; the first is the parameter's rows.
        offset_bytes: where it starts.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        count = 1
        for size in self.shape[1:]:
            count *= size
        return count * np.dtype(NUMPY_DTYPES[self.dtype]).itemsize

    @property
    def size_bytes(self) -> int:
        """Bytes of all rows."""
        return self.shape[0] * self.row_bytes


@dataclass(frozen=True)
class TensorPlan:
    """One decoder parameter: its source, its scheme (None: float), its bytes.

    Attributes:
        name: the decoder's parameter name.
        shape: its float shape.
        source: checkpoint tensors, or None for the computed rotation tables.
        scheme: None for float.
        segments: one for float; packed codes, scales and perhaps zero points when quantized.
        matrix: where its codes come from if the checkpoint is quantized already.
        order: [C] int32, the inputs that the kernel reads, or None where it reads them in order.
    """

    name: str
    shape: tuple[int, ...]
    source: ParameterSource | None
    scheme: Scheme | None
    segments: tuple[Segment, ...]
    matrix: QuantizedMatrix | None = None
    order: Segment | None = None

    @property
    def scheme_name(self) -> str:
        """Of what is quantized the scheme, else the type of its numbers."""
        return self.scheme.name if self.scheme else self.segments[0].dtype

    @property
    def all_segments(self) -> tuple[Segment, ...]:
        """The inputs' order too."""
        return (*self.segments, self.order) if self.order else self.segments

    @property
    def size_bytes(self) -> int:
        """Bytes in the data file, without alignment."""
        return sum(segment.size_bytes for segment in self.all_segments)

    @property
    def num_weights(self) -> int:
        """Numbers in the float parameter."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class ExportPlan:
    """Every tensor of the graph.

    Attributes:
        tensors: by parameter name.
        dtype: "fp32" or "fp16", of attention and logits, and of the KV cache unless it is int8.
        size_bytes: of the data file.
    """

    tensors: Mapping[str, TensorPlan]
    dtype: str
    size_bytes: int

    @property
    def wide_dtype(self) -> str:
        """Type of what float16 cannot hold."""
        return widen_dtype(self.dtype)

    @property
    def parameters(self) -> int:
        """Weights of the checkpoint that the folder holds."""
        return sum(tensor.num_weights for tensor in self.tensors.values() if tensor.source)

    @property
    def bits_per_weight(self) -> float:
        """Bits of all tensors, scales and zero points included, over the number of weights."""
        stored = sum(tensor.size_bytes for tensor in self.tensors.values() if tensor.source)
        return 8 * stored / self.parameters


def widen_dtype(dtype: str) -> str:
    """Type of the residual stream, the norms and what `o_proj` and `down_proj` compute."""
    return "fp32" if dtype == "fp16" else dtype


def is_wide(name: str) -> bool:
    """Whether a parameter's module computes in the wide type."""
    module = name.rsplit(".", maxsplit=1)[0]
    return module.endswith(_WIDE_MODULES)


def build_plan(
    config: DecoderConfig,
    parameters: Mapping[str, ParameterSource],
    schemes: Mapping[str, Scheme | None],
    dtype: str,
    matrices: Mapping[str, QuantizedMatrix] = MappingProxyType({}),
) -> ExportPlan:
    """Lay out the data file.

    Args:
        config: for the rotation tables' shape.
        parameters: name -> source, in the order of the file.
        schemes: of the matrices by name, embedding and head included; others stay float.
        dtype: "fp32" or "fp16", of float tensors and of scales; some are wider, see `is_wide`.
        matrices: parameters that the checkpoint holds quantized, which keep their own scheme.

    Raises:
        OptionsError: the block size does not divide a matrix's rows; the message names it.
    """
    tensors: dict[str, TensorPlan] = {}
    offset = 0
    for name, source in parameters.items():
        matrix = matrices.get(name)
        chosen = matrix.scheme if matrix else schemes.get(name)
        layout = _lay_out(name, source.shape, chosen, dtype)
        segments, offset = _place(layout, offset)
        order = None
        if matrix is not None and matrix.order is not None:
            (order,), offset = _place([(f"{name}.order", "int32", matrix.order.shape)], offset)
        tensors[name] = TensorPlan(name, source.shape, source, chosen, segments, matrix, order)
    table_dtype = widen_dtype(dtype) if is_factored(config) else dtype
    for name, shape in list_tables(config).items():
        segments, offset = _place([(name, table_dtype, shape)], offset)
        tensors[name] = TensorPlan(name, shape, None, None, segments)
    return ExportPlan(tensors, dtype, offset)


def measure_bytes(name: str, shape: tuple[int, ...], scheme: Scheme | None, dtype: str) -> int:
    """Bytes that a parameter takes with a scheme, without alignment.

    Raises:
        OptionsError: the block size does not divide its rows.
    """
    return sum(Segment(*part, 0).size_bytes for part in _lay_out(name, shape, scheme, dtype))


def _lay_out(
    name: str, shape: tuple[int, ...], scheme: Scheme | None, dtype: str
) -> list[tuple[str, str, tuple[int, ...]]]:
    wide = widen_dtype(dtype) if is_wide(name) else dtype
    if scheme is None:  # a wide matrix is multiplied as it is stored, see `lower_linear`
        return [(name, wide if len(shape) == 1 else dtype, shape)]
    try:
        blocks = scheme.count_blocks(shape[1])
    except SchemeError as error:
        raise OptionsError(f"{name}: {error}") from error
    layout: list[tuple[str, str, tuple[int, ...]]] = [
        (f"{name}.packed", "uint8", (shape[0], shape[1] * scheme.bits // 8)),
        (f"{name}.scales", wide, (shape[0], blocks)),
    ]
    if not scheme.is_symmetric:
        layout.append((f"{name}.zero_points", "uint8", (shape[0], -(-blocks * scheme.bits // 8))))
    return layout


def _place(
    layout: list[tuple[str, str, tuple[int, ...]]], offset: int
) -> tuple[tuple[Segment, ...], int]:
    segments = []
    for name, dtype, shape in layout:
        size = Segment(name, dtype, shape, 0).size_bytes
        alignment = _PAGE_BYTES if size >= _LARGE_BYTES else _CACHE_LINE_BYTES
        offset = -(-offset // alignment) * alignment
        segments.append(Segment(name, dtype, shape, offset))
        offset += size
    return tuple(segments), offset
