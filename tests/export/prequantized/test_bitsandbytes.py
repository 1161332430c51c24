"""bitsandbytes: nf4, fp4 and int8 are read as floats by the definition, and quantized anew.

transformers 5.23 cannot save what its `dequantize()` returns, so that there is no way around.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm_export import ExportOptions, export
from glm_export.checkpoint.source_model import open_source
from glm_export.errors import CheckpointError
from support.bitsandbytes_weights import FourBits, draw_four_bits, draw_int8
from support.broken_checkpoints import (
    SHAPES,
    RawTensor,
    edit_config,
    from_array,
    replace_tensors,
    write_small,
)
from support.lora_adapters import LAYER
from support.refusals import assert_sentence
from support.scaled_weights import Floats

Tensors = dict[str, RawTensor]
LINEARS = [name for name in SHAPES if "proj.weight" in name]
QUERY = f"{LAYER}self_attn.q_proj.weight"
RECIPES = [
    FourBits(),
    FourBits("fp4", block_size=128),
    FourBits(is_nested=True),
    FourBits(block_size=48, is_nested=True),  # blocks that no row ends with
    FourBits(storage="BF16"),
    FourBits(storage="F32"),
    None,  # int8
]


def write_bitsandbytes(
    folder: Path, recipe: FourBits | None, change: Callable[[Tensors], Tensors] = dict
) -> dict[str, Floats]:
    """A small checkpoint whose linear layers are stored so; their weights by the definition."""
    write_small(folder)
    tensors: Tensors = {}
    weights = {}
    for name in LINEARS:
        prefix, shape = name.removesuffix(".weight"), (SHAPES[name][0], SHAPES[name][1])
        drawn = draw_four_bits(prefix, shape, recipe) if recipe else draw_int8(prefix, shape)
        tensors |= drawn[0]
        weights[name] = drawn[1]
    replace_tensors(folder, drop=LINEARS, add=change(tensors))
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": recipe is not None}
    edit_config(folder, quantization_config=settings)
    return weights


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_weights_are_those_of_the_definition(tmp_path: Path, recipe: FourBits | None) -> None:
    weights = write_bitsandbytes(tmp_path / "x", recipe)
    source = open_source(tmp_path / "x")
    assert source.stored_format == "" and not source.matrices
    for name, expected in weights.items():
        tolerance = {"rtol": 0 if recipe else 2e-7}
        for start, stop in ((0, len(expected)), (3, 4), (5, 20)):
            found = source.checkpoint.read_rows(name, start, stop)
            np.testing.assert_allclose(found, expected[start:stop], err_msg=name, **tolerance)
        chunks = list(source.checkpoint.iterate_chunks(name))
        assert chunks[-1][1] == len(expected)
    assert source.notes[0].startswith("6 weights stored by bitsandbytes were read as floats")


def test_an_export_is_that_of_the_dequantized_weights(tmp_path: Path) -> None:
    weights = write_bitsandbytes(tmp_path / "in", FourBits(is_nested=True))
    write_small(tmp_path / "floats")
    replace_tensors(tmp_path / "floats", add={n: from_array(w) for n, w in weights.items()})
    for name in ("in", "floats"):
        export(ExportOptions(tmp_path / name, tmp_path / f"{name}-out", method="rtn"))
    found, expected = ((tmp_path / f"{one}-out" / "model.onnx.data") for one in ("in", "floats"))
    assert found.read_bytes() == expected.read_bytes()


def replace_state(**values: Any) -> Callable[[Tensors], Tensors]:
    """Change the JSON of one weight's state."""

    def change(tensors: Tensors) -> Tensors:
        name = f"{QUERY}.quant_state.bitsandbytes__nf4"
        text = json.dumps(json.loads(tensors[name].data) | values).encode()
        return tensors | {name: RawTensor("U8", (len(text),), text)}

    return change


def put(part: str, tensor: RawTensor | None) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        kept = {name: one for name, one in tensors.items() if name != f"{QUERY}{part}"}
        return kept if tensor is None else kept | {f"{QUERY}{part}": tensor}

    return change


NESTED = FourBits(is_nested=True)
STATE = ".quant_state.bitsandbytes__nf4"


@pytest.mark.parametrize(
    ("recipe", "change", "words"),
    [
        (FourBits(), put(".absmax", None), (".absmax is missing", "needs 256 bytes")),
        (FourBits(), put(".absmax", RawTensor("F32", (3,), bytes(12))), ("has 12 bytes", "256")),
        (FourBits(), put(".quant_map", None), (".quant_map is missing", "needs 64 bytes")),
        (FourBits(), put("", RawTensor("U8", (9, 1), bytes(9))), ("has 9 bytes", "2048")),
        (NESTED, put(".nested_quant_map", None), (".nested_quant_map is missing", "1024")),
        (NESTED, put(".nested_absmax", RawTensor("F32", (9,), bytes(36))), ("36 bytes", "4 b")),
        (NESTED, replace_state(nested_blocksize=0), ("nested_blocksize=0", "quant_state")),
        (NESTED, replace_state(nested_offset="x"), ("nested_offset='x'", "quant_state")),
        (FourBits(), replace_state(blocksize=True), ("blocksize=True", "quant_state")),
        (FourBits(), replace_state(shape=[4, 4]), ("shape=[4, 4]", "makes it [64, 64]")),
        (FourBits(), put(STATE, RawTensor("U8", (2,), b"[]")), ("shape=[]", "[64, 64]")),
        (FourBits(), put(STATE, RawTensor("U8", (2,), b"{x")), ("has no JSON (", "download")),
    ],
)
def test_tensors(
    tmp_path: Path,
    recipe: FourBits,
    change: Callable[[Tensors], Tensors],
    words: tuple[str, ...],
) -> None:
    write_bitsandbytes(tmp_path / "x", recipe, change)
    with pytest.raises(CheckpointError) as caught:
        open_source(tmp_path / "x")
    assert_sentence(str(caught.value), QUERY, *words)


@pytest.mark.parametrize(
    ("part", "tensor", "words"),
    [
        ("SCB", None, ("SCB [64, 1] is missing, which bitsandbytes needs",)),
        ("SCB", RawTensor("F32", (2,), bytes(8)), ("SCB is [2] but", "[64, 1]")),
        ("weight_format", RawTensor("U8", (), bytes([2])), ("weight_format is not 0", "GPU")),
    ],
)
def test_int8(tmp_path: Path, part: str, tensor: RawTensor | None, words: tuple[str, ...]) -> None:
    name = f"{LAYER}self_attn.q_proj.{part}"

    def change(tensors: Tensors) -> Tensors:
        kept = {key: one for key, one in tensors.items() if key != name}
        return kept if tensor is None else kept | {name: tensor}

    write_bitsandbytes(tmp_path / "x", None, change)
    with pytest.raises(CheckpointError) as caught:
        open_source(tmp_path / "x")
    assert_sentence(str(caught.value), *words)
