"""ONNX Runtime's own weight quantizer, by its interface in Python.

    python -m benchmarks.peers.ort_quantizer FLOATS DIR SETTINGS

FLOATS is a folder of `glm-export --quant none`; SETTINGS is a JSON object, see `Settings`. The
quantizer knows `MatMul` with a weight [C, N], which is how other exporters' graphs look, so ours is
rewritten first; the model stays in one file, hence below 2 GB. Only the default method quantizes
embeddings, and only to 4 bits; it does so for all methods of 4 bits, which favours them.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    KQuantWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
    WeightOnlyQuantConfig,
)

# Axes of MatMul's weight [C, N] and of Gather's table [V, C] that blocks run along.
_AXES = (("MatMul", 0), ("Gather", 1))
_ACCURACY_LEVEL = 4  # activations in int8, as in our graphs
_EMBEDDING_BITS = 4  # the only width that the quantizer has for Gather


@dataclass(frozen=True)
class Settings:
    """One run of the quantizer.

    Attributes:
        method: "default" (round to nearest), "hqq", "k_quant", or "none" for the rewritten floats.
        bits: 4 or 8.
        block_size: weights that share a scale.
        is_symmetric: no zero points; "default" only.
        is_mixed: onnxruntime-genai's "k_quant_mixed": the head and some layers in 8 bits.
    """

    method: str
    bits: int
    block_size: int
    is_symmetric: bool = False
    is_mixed: bool = False


def rewrite(model: onnx.ModelProto) -> None:
    """FusedMatMul(x, W [N, C], transB=1) -> MatMul(x, W^T [C, N]), in place."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "FusedMatMul":
            continue
        tensor = weights[node.input[1]]
        transposed = np.ascontiguousarray(numpy_helper.to_array(tensor).T)
        tensor.CopyFrom(numpy_helper.from_array(transposed, tensor.name))
        node.op_type, node.domain = "MatMul", ""
        del node.attribute[:]


def quantize(model: onnx.ModelProto, settings: Settings) -> onnx.ModelProto:
    """All products with the method, then the embedding with the default one at 4 bits."""
    if settings.method == "none":
        return model
    config = _configure(model, settings)
    model = _run(model, config, settings)
    if settings.bits != _EMBEDDING_BITS:
        return model
    embedding = DefaultWeightOnlyQuantConfig(
        settings.block_size,
        settings.is_symmetric,
        _ACCURACY_LEVEL,
        op_types_to_quantize=("Gather",),
        quant_axes=_AXES,
        bits=_EMBEDDING_BITS,
    )
    return _run(model, embedding, settings)


def _configure(model: onnx.ModelProto, settings: Settings) -> WeightOnlyQuantConfig:
    products = ("MatMul",)
    if settings.method == "hqq":
        return HQQWeightOnlyQuantConfig(
            settings.block_size, settings.bits, op_types_to_quantize=products, quant_axes=_AXES
        )
    if settings.method == "k_quant":
        bits = {node.name: settings.bits for node in model.graph.node if node.op_type == "MatMul"}
        if settings.is_mixed:
            bits |= dict.fromkeys(_choose_wide(list(bits)), 8)
        return KQuantWeightOnlyQuantConfig(
            op_types_to_quantize=products,
            customized_weight_config={name: {"bits": width} for name, width in bits.items()},
        )
    return DefaultWeightOnlyQuantConfig(
        settings.block_size,
        settings.is_symmetric,
        _ACCURACY_LEVEL,
        op_types_to_quantize=products,
        quant_axes=_AXES,
        bits=settings.bits,
    )


def _choose_wide(names: Sequence[str]) -> list[str]:
    """The products that onnxruntime-genai 0.18's model builder keeps in 8 bits for this method.

    Source: its `builders/base.py`, make_matmul_mixed_precision.
    """
    count = len({name.split(".")[1] for name in names if name.startswith("layers.")})
    layers = [
        index
        for index in range(count)
        if index < count / 8 or index >= 7 * count / 8 or (index - round(count / 8)) % 3 == 2
    ]
    kept = [f"layers.{index}.{part}" for index in layers for part in ("qkv_proj", "down_proj")]
    return [name for name in names if name in kept or name == "lm_head"]


def _run(
    model: onnx.ModelProto, config: WeightOnlyQuantConfig, settings: Settings
) -> onnx.ModelProto:
    quantizer = MatMulNBitsQuantizer(
        model,
        bits=settings.bits,
        block_size=settings.block_size,
        is_symmetric=settings.is_symmetric,
        accuracy_level=_ACCURACY_LEVEL,
        algo_config=config,
    )
    quantizer.process()
    result: onnx.ModelProto = quantizer.model.model
    return result


def measure(model: onnx.ModelProto) -> dict[str, object]:
    """Bytes of all stored parameters: the rotation tables and axes are none."""
    stored = [
        tensor
        for tensor in model.graph.initializer
        if tensor.name not in ("cos", "sin") and tensor.data_type != onnx.TensorProto.INT64
    ]
    sizes = {tensor.name: len(tensor.raw_data) for tensor in stored}
    if not all(sizes.values()):
        empty = [name for name, size in sizes.items() if not size]
        sys.exit(f"ort_quantizer.py: {empty} hold no raw data, so their size is unknown")
    types = [node.op_type for node in model.graph.node]
    counted = ("MatMul", "MatMulNBits", "Gather", "GatherBlockQuantized")
    return {
        "tensor_bytes": sum(sizes.values()),
        "nodes": {name: types.count(name) for name in counted if name in types},
    }


def convert(floats: Path, folder: Path, settings: Mapping[str, Any]) -> dict[str, object]:
    """All steps; the result is `folder`/model.onnx."""
    model = onnx.load(floats / "model.onnx")
    rewrite(model)
    model = quantize(model, Settings(**settings))
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    return measure(model)


if __name__ == "__main__":
    report = convert(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
    print(f"\n{json.dumps(report)}")  # k_quant leaves a progress bar on the line before
