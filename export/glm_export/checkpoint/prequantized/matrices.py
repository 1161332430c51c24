"""Quantized linear layers as the decoder's parameters. Query, key and value become one matrix.

Gate and up become one matrix, too. One kernel computes all of a matrix, so its layers need the same
bits and the same order of inputs. If their block sizes or symmetry differ, smaller blocks and
explicit zero points represent them exactly.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.prequantized.description import PrequantizedFormat, QuantizedLinear
from glm_export.errors import CheckpointError, UnsupportedModelError
from glm_export.model.architectures.description import ParameterSource
from glm_quantize import FloatArray, QuantizedRows, Scheme, dequantize
from glm_quantize.codes import IndexArray

_EMBEDDING = "model.embed_tokens"


@dataclass(frozen=True, eq=False)
class QuantizedMatrix:
    """A parameter of the decoder that the checkpoint holds as integers.

    Attributes:
        linears: linear layers whose rows form the matrix, in order.
        scheme: scheme of the whole matrix.
        order: [C] order of the kernel's inputs x[..., order]; None: the model's order.
        tensors: names of the tensors that form the matrix, and of their all-zero biases.
    """

    linears: tuple[QuantizedLinear, ...]
    scheme: Scheme
    order: IndexArray | None
    tensors: frozenset[str]

    def read_rows(self, index: int, start: int, stop: int) -> QuantizedRows:
        """Read rows start ... stop of a linear layer, in the matrix's scheme and order."""
        return _express(self.linears[index].read_rows(start, stop), self.scheme)

    def iterate_chunks(self) -> Iterator[tuple[int, int, int]]:
        """Yield (index of the linear layer, start, stop) for all rows in order."""
        for index, linear in enumerate(self.linears):
            for start, stop in linear.iterate_chunks():
                yield index, start, stop

    def read_weight(self) -> FloatArray:
        """Dequantize the whole matrix [N, C] to float32, with inputs in the model's order."""
        chunks = [dequantize(self.read_rows(*chunk)) for chunk in self.iterate_chunks()]
        return restore_order(np.concatenate(chunks), self.order)


def restore_order(weight: FloatArray, order: IndexArray | None) -> FloatArray:
    """Move the inputs of a weight [N, C] from `order` back to the model's order."""
    if order is None:
        return weight
    restored = np.empty_like(weight)
    restored[:, order] = weight
    return restored


def find_matrices(
    checkpoint: Checkpoint,
    stored_format: PrequantizedFormat,
    parameters: Mapping[str, ParameterSource],
) -> dict[str, QuantizedMatrix]:
    """Find the parameters that the checkpoint holds as integers; the others are floats.

    Raises:
        CheckpointError: a tensor is missing or contradicts config.json.
        UnsupportedModelError: no kernel supports a linear layer; the message names it.
    """
    expected = {name for source in parameters.values() for name, _ in source.tensors}
    found: dict[str, QuantizedMatrix] = {}
    for name, source in parameters.items():
        if len(source.shape) != 2:
            continue
        prefixes = [part.removesuffix(".weight") for part, _ in source.tensors]
        are_quantized = [stored_format.is_quantized(checkpoint, prefix) for prefix in prefixes]
        if not any(are_quantized):
            continue
        _check_kind(prefixes, are_quantized, stored_format.method)
        linears = [
            stored_format.open_linear(checkpoint, prefix, (shape[0], shape[1]))
            for prefix, (_, shape) in zip(prefixes, source.tensors, strict=True)
        ]
        biases = [bias for linear in linears for bias in _find_bias(checkpoint, linear, expected)]
        found[name] = join_linears(linears, biases)
    return found


def join_linears(
    linears: list[QuantizedLinear], other_tensors: list[str] | None = None
) -> QuantizedMatrix:
    """Join linear layers with the same inputs to one matrix.

    Raises:
        UnsupportedModelError: they differ in bits or in the order of inputs.
    """
    first = linears[0]
    for linear in linears[1:]:
        if linear.scheme.bits != first.scheme.bits:
            raise UnsupportedModelError(
                f"{first.prefix} has {first.scheme.bits} bits and {linear.prefix} has "
                f"{linear.scheme.bits}, but one kernel computes both; "
                "use a checkpoint with the same bits for both."
            )
        if not _is_same_order(linear.layout.order, first.layout.order):
            raise UnsupportedModelError(
                f"{first.prefix} and {linear.prefix} store their inputs in different orders, but "
                "one kernel computes both; use a checkpoint without desc_act."
            )
    scheme = Scheme(
        bits=first.scheme.bits,
        block_size=min(linear.scheme.block_size for linear in linears),
        is_symmetric=all(linear.scheme.is_symmetric for linear in linears),
    )
    names = {part.name for linear in linears for part in linear.parts}
    tensors = frozenset(names.union(other_tensors or ()))
    return QuantizedMatrix(tuple(linears), scheme, first.layout.order, tensors)


def _check_kind(prefixes: list[str], are_quantized: list[bool], method: str) -> None:
    if _EMBEDDING in prefixes:
        raise UnsupportedModelError(
            f"{_EMBEDDING} is stored as {method}; supported are quantized linears only: "
            "use a checkpoint whose embedding is not quantized."
        )
    if not all(are_quantized):
        first, second = prefixes[are_quantized.index(True)], prefixes[are_quantized.index(False)]
        raise UnsupportedModelError(
            f"{first} is quantized but {second} is not, and one kernel computes both; "
            "use a checkpoint that quantizes both, or neither."
        )


def _find_bias(
    checkpoint: Checkpoint, linear: QuantizedLinear, expected: set[str]
) -> Iterator[str]:
    """Find the all-zero bias that AutoGPTQ adds to a linear layer without bias."""
    name = f"{linear.prefix}.bias"
    if name in expected or name not in checkpoint.tensors:
        return
    if checkpoint.tensors[name].shape != (linear.rows,) or np.any(checkpoint.read(name)):
        raise CheckpointError(
            f"{name} exists and is not all zero, but the model has no such bias; "
            "check that config.json belongs to these weights."
        )
    yield name


def _is_same_order(first: IndexArray | None, second: IndexArray | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second)


def _express(rows: QuantizedRows, scheme: Scheme) -> QuantizedRows:
    """Represent the same weights in smaller blocks, or with explicit zero points."""
    if rows.scheme == scheme:
        return rows
    repeats = rows.scheme.block_size // scheme.block_size
    zero_points = rows.zero_points
    if zero_points is None and not scheme.is_symmetric:
        default = rows.scheme.default_zero_point
        zero_points = np.full(rows.scales.shape, default, dtype=np.uint8)
    if zero_points is not None:
        zero_points = np.repeat(zero_points, repeats, axis=1)
    return QuantizedRows(scheme, rows.codes, np.repeat(rows.scales, repeats, axis=1), zero_points)
