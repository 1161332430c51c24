"""The plan of an export: the scheme of each parameter and its location in the data file.

Read `model/architectures/` before, and `graph/passes/` and `output/writer.py` after.
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

# Large tensors start at a memory page, so that a host can map them; small ones at a cache line.
_PAGE_BYTES = 4096
_CACHE_LINE_BYTES = 64
_LARGE_BYTES = 1 << 20
NUMPY_DTYPES: Mapping[str, npt.DTypeLike] = MappingProxyType(
    {"fp32": "<f4", "fp16": "<f2", "uint8": "u1", "int32": "<i4"}
)
EMBEDDING = "embed_tokens.weight"
# Modules that compute in the wide type in addition to the norms; see `decoder.py`.
_WIDE_MODULES = ("o_proj", "down_proj", "norm")


@dataclass(frozen=True)
class Segment:
    """A range of bytes in the data file.

    Attributes:
        name: name of the initializer.
        dtype: "fp32", "fp16" or "uint8".
        shape: row-major dimensions; the first one counts the parameter's rows.
        offset_bytes: first byte.
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
    """Source, scheme and location of one parameter of the decoder.

    Attributes:
        name: name of the parameter.
        shape: shape of the float parameter.
        source: tensors of the checkpoint; None for the computed rotation tables.
        scheme: quantization scheme; None for float.
        segments: one segment for float; codes, scales and optional zero points if quantized.
        matrix: source of the codes if the checkpoint is already quantized.
        order: [C] int32 order in which the kernel reads the inputs; None is the model's order.
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
        """Name of the scheme if the parameter is quantized, else of the float type."""
        return self.scheme.name if self.scheme else self.segments[0].dtype

    @property
    def all_segments(self) -> tuple[Segment, ...]:
        """All segments, including the order of the inputs."""
        return (*self.segments, self.order) if self.order else self.segments

    @property
    def size_bytes(self) -> int:
        """Number of bytes in the data file, without alignment."""
        return sum(segment.size_bytes for segment in self.all_segments)

    @property
    def num_weights(self) -> int:
        """Number of elements of the float parameter."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class ExportPlan:
    """The plan of all tensors of the graph.

    Attributes:
        tensors: plan of each tensor by parameter name.
        dtype: "fp32" or "fp16", type of attention and logits, and of a float KV cache.
        size_bytes: size of the data file.
    """

    tensors: Mapping[str, TensorPlan]
    dtype: str
    size_bytes: int

    @property
    def wide_dtype(self) -> str:
        """Type of values that may be too large for float16."""
        return widen_dtype(self.dtype)

    @property
    def parameters(self) -> int:
        """Number of weights, without computed tables."""
        return sum(tensor.num_weights for tensor in self.tensors.values() if tensor.source)

    @property
    def bits_per_weight(self) -> float:
        """Bits of all tensors, scales and zero points included, divided by the weights."""
        stored = sum(tensor.size_bytes for tensor in self.tensors.values() if tensor.source)
        return 8 * stored / self.parameters


def widen_dtype(dtype: str) -> str:
    """Return the type of the residual stream, norms, and outputs of `o_proj` and `down_proj`."""
    return "fp32" if dtype == "fp16" else dtype


def is_wide(name: str) -> bool:
    """Return True if the module of a parameter computes in the wide type."""
    module = name.rsplit(".", maxsplit=1)[0]
    return module.endswith(_WIDE_MODULES)


def build_plan(
    config: DecoderConfig,
    parameters: Mapping[str, ParameterSource],
    schemes: Mapping[str, Scheme | None],
    dtype: str,
    matrices: Mapping[str, QuantizedMatrix] = MappingProxyType({}),
) -> ExportPlan:
    """Plan the data file.

    Args:
        config: shape of the decoder.
        parameters: source of each parameter, in the order of the file.
        schemes: schemes of the matrices, embedding and head included; other tensors stay float.
        dtype: "fp32" or "fp16", type of float tensors and scales; see `is_wide` for exceptions.
        matrices: parameters that the checkpoint holds quantized, which keep their schemes.

    Raises:
        OptionsError: a row of a matrix is not a multiple of the block size.
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
    """Return the bytes of a parameter in a scheme, without alignment.

    Raises:
        OptionsError: a row is not a multiple of the block size.
    """
    return sum(Segment(*part, 0).size_bytes for part in _lay_out(name, shape, scheme, dtype))


def _lay_out(
    name: str, shape: tuple[int, ...], scheme: Scheme | None, dtype: str
) -> list[tuple[str, str, tuple[int, ...]]]:
    wide = widen_dtype(dtype) if is_wide(name) else dtype
    if scheme is None:  # see `lower_linear` for the product with wide inputs
        return [(name, wide if len(shape) == 1 else dtype, shape)]
    try:
        blocks = scheme.count_blocks(shape[1])
    except SchemeError as error:
        raise OptionsError(f"{name}: {error}") from error
    layout: list[tuple[str, str, tuple[int, ...]]] = [
        (f"{name}.packed", "uint8", (shape[0], shape[1] * scheme.bits // 8)),
        (f"{name}.scales", wide, (shape[0], blocks)),
    ]
    # GatherBlockQuantized of onnxruntime-gpu before 1.31 takes missing zero points as 0.
    if not scheme.is_symmetric or name == EMBEDDING:
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
