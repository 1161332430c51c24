"""Weights of an exported folder as floats, read by a second, independent implementation.

It follows ONNX Runtime's description of MatMulNBits, block by block, and shares no code with
`glm_quantize`: a mistake there cannot cancel itself out here.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from transformers import PreTrainedModel

from glm_runtime.folder.manifest import read_manifest

Floats = npt.NDArray[np.float32]


def load_dequantized(folder: Path, model: PreTrainedModel) -> None:
    """Put a folder's weights, dequantized, into a transformers model of the same shape."""
    weights = read_weights(folder)
    state = dict(model.state_dict())
    for tensor in read_manifest(folder).tensors:
        for source in tensor.sources:
            start, stop = source.first_row, source.first_row + len(state[source.tensor])
            state[source.tensor] = torch.from_numpy(weights[tensor.name][start:stop].copy())
    model.load_state_dict(state)


def read_weights(folder: Path) -> dict[str, Floats]:
    """Decoder parameter name -> float32 values, from the graph's own initializers."""
    graph = onnx.load(str(folder / "model.onnx")).graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    weights = {name: array.astype(np.float32) for name, array in arrays.items()}
    for node in graph.node:
        if node.op_type not in ("MatMulNBits", "GatherBlockQuantized"):
            continue
        attributes = {a.name: a.i for a in node.attribute}
        names = [name for name in node.input if name.endswith((".scales", ".zero_points"))]
        codes = next(name for name in node.input if ".packed" in name)
        scales = weights[names[0]]
        zeros = arrays[names[1]] if len(names) > 1 else None
        parameter = names[0].removesuffix(".scales")
        weights[parameter] = _dequantize(
            arrays[codes], scales, zeros, attributes["bits"], attributes["block_size"]
        )
    return weights


def _dequantize(
    packed: npt.NDArray[np.uint8],
    scales: Floats,
    zeros: npt.NDArray[np.uint8] | None,
    bits: int,
    block_size: int,
) -> Floats:
    rows, blocks = scales.shape
    codes = _unpack(packed.reshape(rows, -1), blocks * block_size, bits)
    middle = np.float32(1 << (bits - 1))
    zero = middle if zeros is None else _unpack(zeros, blocks, bits)[:, :, None]
    values = (codes.reshape(rows, blocks, block_size) - zero) * scales[:, :, None]
    result: Floats = values.reshape(rows, -1)
    return result


def _unpack(packed: npt.NDArray[np.uint8], count: int, bits: int) -> Floats:
    """The first `count` codes of every row; of two in a byte the lower half comes first."""
    codes = packed
    if bits == 4:
        codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)
    return codes[:, :count].astype(np.float32)
