"""Checkpoints that store gate and up one by one, where transformers has `gate_up_proj`.

GPTQModel 7 writes them so, in every format. They were refused: "gate_up_proj.weight is missing".
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glm_export.checkpoint.source_model import SourceModel, open_source
from glm_export.errors import CheckpointError, ExportError, UnsupportedModelError
from support.broken_checkpoints import (
    RawTensor,
    edit_config,
    random_tensors,
    replace_tensors,
    write_small,
)
from support.prequantized_checkpoints import Prequantized, write_prequantized
from support.prequantized_tensors import (
    AWQ,
    COMPRESSED,
    GPTQ,
    Recipe,
    describe,
    draw_quantized,
    store,
)
from support.refusals import assert_sentence
from support.tiny_models import TinyShape

MLP = "model.layers.0.mlp."
GATE_UP = "layers.0.gate_up_proj.weight"
RECIPES = [
    Recipe(GPTQ, group_size=128, is_symmetric=True),
    Recipe(GPTQ, group_size=32, has_order=True),
    Recipe(GPTQ, 8, 64, version="gptq_v2"),
    Recipe(AWQ, group_size=32, is_symmetric=True, scale_dtype="BF16"),
    Recipe(COMPRESSED, group_size=64),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("model_type", ["glm", "glm4"])
def test_gate_and_up_are_two_sources(tmp_path: Path, model_type: str, recipe: Recipe) -> None:
    """Every parameter is the definition's, the gate's rows first, and nothing is left over."""
    shape = TinyShape(model_type=model_type)
    model = write_prequantized(tmp_path, Prequantized(shape, recipe, is_split=True))
    source = open_source(tmp_path)
    state = model.state_dict()
    for index in range(source.config.num_layers):
        found = source.read_parameter(f"layers.{index}.gate_up_proj.weight")
        expected = state[f"model.layers.{index}.mlp.gate_up_proj.weight"].numpy()
        np.testing.assert_array_equal(found, expected)
    names = [name for name, _ in source.parameters[GATE_UP].tensors]
    assert names == [f"{MLP}gate_proj.weight", f"{MLP}up_proj.weight"]


def test_layers_that_stay_floats(tmp_path: Path) -> None:
    """A mix: some layers are stored by AWQ, gate and up one by one, and the others as floats."""
    chosen = ("0.mlp.gate_up_proj", "0.self_attn.o_proj", "1.mlp.down_proj")
    wanted = Prequantized(
        TinyShape(), Recipe(AWQ), lambda name: name.endswith(chosen), is_split=True
    )
    state = write_prequantized(tmp_path, wanted).state_dict()
    source = open_source(tmp_path)
    assert len(source.matrices) == len(chosen)
    for name, of in source.parameters.items():
        stored = [one.replace("gate_proj", "gate_up_proj") for one, _ in of.tensors]
        expected = [state[one].numpy() for one in stored if "mlp.up_proj" not in one]
        np.testing.assert_array_equal(source.read_parameter(name), np.concatenate(expected))


def split_rows(tensor: RawTensor) -> tuple[RawTensor, RawTensor]:
    half = len(tensor.data) // 2
    shape = (tensor.shape[0] // 2, *tensor.shape[1:])
    return RawTensor("F32", shape, tensor.data[:half]), RawTensor("F32", shape, tensor.data[half:])


def write_split(folder: Path) -> Path:
    """A float checkpoint with gate and up one by one."""
    write_small(folder)
    gate, up = split_rows(random_tensors()[f"{MLP}gate_up_proj.weight"])
    added = {f"{MLP}gate_proj.weight": gate, f"{MLP}up_proj.weight": up}
    replace_tensors(folder, drop=[f"{MLP}gate_up_proj.weight"], add=added)
    return folder


def test_floats_that_are_split(tmp_path: Path) -> None:
    write_small(tmp_path / "whole")
    expected = open_source(tmp_path / "whole").read_parameter(GATE_UP)
    found = open_source(write_split(tmp_path / "split")).read_parameter(GATE_UP)
    np.testing.assert_array_equal(found, expected)


def refuse(folder: Path, kind: type[ExportError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        open_source(folder)
    assert caught.type is kind
    assert_sentence(str(caught.value), *words)


def test_one_of_the_two_is_missing(tmp_path: Path) -> None:
    write_small(tmp_path / "x")
    gate, _ = split_rows(random_tensors()[f"{MLP}gate_up_proj.weight"])
    replace_tensors(
        tmp_path / "x", drop=[f"{MLP}gate_up_proj.weight"], add={f"{MLP}gate_proj.weight": gate}
    )
    refuse(tmp_path / "x", CheckpointError, f"{MLP}up_proj.weight [96, 64] is missing")


def test_both_the_whole_and_its_parts(tmp_path: Path) -> None:
    write_small(tmp_path / "x")
    gate, up = split_rows(random_tensors()[f"{MLP}gate_up_proj.weight"])
    added = {f"{MLP}gate_proj.weight": gate, f"{MLP}up_proj.weight": up}
    replace_tensors(tmp_path / "x", add=added)
    refuse(tmp_path / "x", CheckpointError, f"{MLP}gate_proj.weight")


def write_two(folder: Path, gate: Recipe, up: Recipe | None) -> None:
    write_split(folder)
    tensors = {}
    for name, recipe in (("gate_proj", gate), ("up_proj", up)):
        if recipe is not None:
            linear = draw_quantized(f"{MLP}{name}", (96, 64), recipe)
            tensors |= store(f"{MLP}{name}", linear, recipe)
    kept = split_rows(random_tensors()[f"{MLP}gate_up_proj.weight"])[1]
    added = tensors if up else tensors | {f"{MLP}up_proj.weight": kept}
    replace_tensors(folder, drop=[f"{MLP}gate_up_proj.weight"], add=added)
    edit_config(folder, quantization_config=describe(gate))


def test_two_that_one_kernel_does_not_compute(tmp_path: Path) -> None:
    recipe = Recipe(GPTQ)
    write_two(tmp_path / "one", recipe, None)
    words = (f"{MLP}gate_proj is quantized but {MLP}up_proj is not", "quantizes both")
    refuse(tmp_path / "one", UnsupportedModelError, *words)
    write_two(tmp_path / "bits", recipe, replace(recipe, bits=8))
    rules = {"dynamic": {r"+:.*\.up_proj": {"bits": 8}}}
    edit_config(tmp_path / "bits", quantization_config=describe(recipe) | rules)
    words = (f"{MLP}gate_proj has 4 bits and {MLP}up_proj has 8", "the same bits for both")
    refuse(tmp_path / "bits", UnsupportedModelError, *words)


def test_one_matrix_that_another_group_size_covers(tmp_path: Path) -> None:
    """A rule for `up_proj` alone is met by its own name; both become blocks of the smaller size."""
    recipe = Recipe(GPTQ, group_size=64)
    write_two(tmp_path / "x", recipe, replace(recipe, group_size=32))
    rules = {"dynamic": {r"+:.*\.up_proj": {"group_size": 32}}}
    edit_config(tmp_path / "x", quantization_config=describe(recipe) | rules)
    source: SourceModel = open_source(tmp_path / "x")
    assert source.matrices[GATE_UP].scheme.name == "int4-b32-asym"
