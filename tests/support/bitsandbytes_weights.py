"""Weights as bitsandbytes saves them, written by its definition, code by code.

What is said here agrees with files of bitsandbytes 0.50.2: the exporter read those to the bit.
"""

import json
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from support.broken_checkpoints import RawTensor, from_array

Floats = npt.NDArray[np.float32]
# The normal float of 4 bits, from the paper on QLoRA (Dettmers et al. 2023), appendix E.
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


@dataclass(frozen=True)
class FourBits:
    """How a weight is stored.

    Attributes:
        kind: nf4 or fp4, in the name of the state.
        block_size: codes that share a scale.
        is_nested: whether the scales are quantized, too.
        storage: type of the tensor of codes.
    """

    kind: str = "nf4"
    block_size: int = 64
    is_nested: bool = False
    storage: str = "U8"


def draw_four_bits(
    prefix: str, shape: tuple[int, int], recipe: FourBits
) -> tuple[dict[str, RawTensor], Floats]:
    """The tensors of a linear, and its weight, weight by weight."""
    random = np.random.default_rng(zlib.crc32(prefix.encode()))
    count = shape[0] * shape[1]
    codes = random.integers(0, 16, count)
    table = np.array(NF4, dtype=np.float32)
    blocks = -(-count // recipe.block_size)
    state: dict[str, object] = {
        "quant_type": recipe.kind,
        "blocksize": recipe.block_size,
        "dtype": "bfloat16",
        "shape": list(shape),
    }
    tensors: dict[str, RawTensor] = {}
    if recipe.is_nested:
        inner = random.integers(0, 256, blocks)
        values = np.sort(random.uniform(-1, 1, 256)).astype(np.float32)
        outer = random.uniform(0.01, 0.02, -(-blocks // 256)).astype(np.float32)
        state |= {"nested_blocksize": 256, "nested_offset": 0.25, "nested_dtype": "float32"}
        scales = np.empty(blocks, dtype=np.float32)
        for index in range(blocks):
            scales[index] = values[inner[index]] * outer[index // 256] + np.float32(0.25)
        tensors["nested_absmax"], tensors["nested_quant_map"] = (
            from_array(outer),
            from_array(values),
        )
        tensors["absmax"] = RawTensor("U8", (blocks,), inner.astype(np.uint8).tobytes())
    else:
        scales = random.uniform(0.1, 0.4, blocks).astype(np.float32)
        tensors["absmax"] = from_array(scales)
    weight = np.empty(count, dtype=np.float32)
    for index in range(count):
        weight[index] = table[codes[index]] * scales[index // recipe.block_size]
    packed = bytes(
        int(codes[i]) << 4 | (int(codes[i + 1]) if i + 1 < count else 0) for i in range(0, count, 2)
    )
    size = {"U8": 1, "BF16": 2, "F32": 4}[recipe.storage]
    text = json.dumps(state).encode()
    tensors["quant_map"] = from_array(table)
    tensors[f"quant_state.bitsandbytes__{recipe.kind}"] = RawTensor("U8", (len(text),), text)
    found = {f"{prefix}.weight.{name}": tensor for name, tensor in tensors.items()}
    found[f"{prefix}.weight"] = RawTensor(recipe.storage, (len(packed) // size, 1), packed)
    return found, weight.reshape(shape)


def draw_int8(prefix: str, shape: tuple[int, int]) -> tuple[dict[str, RawTensor], Floats]:
    """The tensors of LLM.int8, and the weight: codes times the largest value of the row / 127."""
    random = np.random.default_rng(zlib.crc32(prefix.encode()))
    codes = random.integers(-127, 128, shape).astype(np.int8)
    largest = random.uniform(0.2, 0.8, shape[0]).astype(np.float32)
    return {
        f"{prefix}.weight": RawTensor("I8", shape, codes.tobytes()),
        f"{prefix}.SCB": from_array(largest),
        f"{prefix}.weight_format": RawTensor("U8", (), bytes(1)),
    }, (codes * (largest.astype(np.float64) / 127)[:, None]).astype(np.float32)
