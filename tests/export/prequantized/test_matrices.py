"""Whole checkpoints: which parameters are integers, and query, key and value as one matrix."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedModel

from glm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from glm_export.checkpoint.prequantized import QuantizedMatrix, find_format, find_matrices
from glm_export.checkpoint.prequantized.matrices import join_linears
from glm_export.checkpoint.source_model import open_source
from glm_export.errors import CheckpointError, ExportError, UnsupportedModelError
from glm_export.model.architectures import ARCHITECTURES, ParameterSource
from glm_quantize import FloatArray, dequantize
from support.broken_checkpoints import (
    CONFIG,
    SHAPES,
    RawTensor,
    edit_config,
    from_array,
    random_tensors,
    replace_tensors,
    write_json,
    write_safetensors,
    write_small,
)
from support.prequantized_checkpoints import Prequantized, write_prequantized
from support.prequantized_tensors import (
    AWQ,
    COMPRESSED,
    GPTQ,
    Quantized,
    Recipe,
    describe,
    draw_quantized,
    floats,
    store,
)
from support.refusals import assert_sentence
from support.tiny_models import TinyShape

LAYER = "model.layers.0."
ATTENTION = LAYER + "self_attn."
GLM4 = TinyShape()
Tensors = dict[str, RawTensor]


def locate(checkpoint: Checkpoint) -> dict[str, ParameterSource]:
    config = {key: value for key, value in checkpoint.config.items() if "quantization" not in key}
    architecture = ARCHITECTURES[config["model_type"]]
    return dict(architecture.locate_parameters(architecture.read_config(config)))


def open_matrices(folder: Path) -> dict[str, QuantizedMatrix]:
    checkpoint = open_checkpoint(folder)
    stored_format = find_format(checkpoint.config)
    assert stored_format is not None
    return find_matrices(checkpoint, stored_format, locate(checkpoint))


def read_model(model: PreTrainedModel, source: ParameterSource) -> FloatArray:
    state = model.state_dict()
    weights: list[FloatArray] = [state[name].numpy() for name, _ in source.tensors]
    return np.concatenate(weights)


# --- checkpoints of transformers' own models


@dataclass(frozen=True)
class Case:
    recipe: Recipe
    shape: TinyShape = GLM4
    has_head: bool = False


CASES = {
    "gptq": Case(Recipe(GPTQ, group_size=128, is_symmetric=True)),
    "gptq order, head": Case(Recipe(GPTQ, has_order=True), has_head=True),
    "awq": Case(Recipe(AWQ, group_size=64)),
    "awq, tied": Case(
        Recipe(AWQ), TinyShape(model_type="glm", attention_bias=False, tie_word_embeddings=True)
    ),
    "compressed": Case(Recipe(COMPRESSED, group_size=128, scale_dtype="BF16")),
    "compressed order": Case(Recipe(COMPRESSED, bits=8, has_order=True)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_whole_checkpoint(tmp_path: Path, case: Case) -> None:
    """Every parameter is the definition's, and no tensor of the checkpoint is left over."""
    wanted = Prequantized(case.shape, case.recipe, lambda name: case.has_head or name != "lm_head")
    model = write_prequantized(tmp_path, wanted)
    matrices = open_matrices(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    parameters = locate(checkpoint)
    used = set()
    for name, source in parameters.items():
        is_linear = "proj" in name and name.endswith("weight")
        assert (name in matrices) == (is_linear or (case.has_head and name == "lm_head.weight"))
        if name not in matrices:
            used |= {tensor for tensor, _ in source.tensors}
            continue
        used |= matrices[name].tensors
        np.testing.assert_array_equal(matrices[name].read_weight(), read_model(model, source))
    assert used == set(checkpoint.tensors)


# --- query, key and value


def write_attention(
    folder: Path, recipes: dict[str, Recipe], change: Callable[[Tensors], Tensors] = dict
) -> FloatArray:
    """A small checkpoint with q, k and v quantized as told; their rows, dequantized."""
    write_small(folder)
    tensors = random_tensors()
    weights = []
    for name, recipe in recipes.items():
        prefix = f"{ATTENTION}{name}_proj"
        shape = SHAPES[f"{prefix}.weight"]
        linear = draw_quantized(prefix, (shape[0], shape[1]), recipe)
        del tensors[f"{prefix}.weight"]
        tensors |= store(prefix, linear, recipe)
        weights.append(linear.dequantize())
    write_safetensors(folder / "model.safetensors", change(tensors))
    first = next(iter(recipes.values()))
    edit_config(folder, quantization_config=describe(first))
    return np.concatenate(weights)


def set_dynamic(folder: Path, rules: dict[str, Any], recipe: Recipe) -> None:
    edit_config(folder, quantization_config=describe(recipe) | {"dynamic": rules})


def refuse(folder: Path, kind: type[ExportError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        open_matrices(folder)
    assert caught.type is kind
    assert_sentence(str(caught.value), *words)


def test_blocks_and_zero_points_that_differ(tmp_path: Path) -> None:
    """Groups of 64, symmetric and not, beside groups of 32: all are expressed as the last.

    Two groups and more of each, so that repeating is told from tiling.
    """
    recipes = {
        "query": Recipe(GPTQ, group_size=64, is_symmetric=True),
        "key": Recipe(GPTQ, group_size=64),
        "value": Recipe(GPTQ, group_size=32),
    }
    drawn = {name: draw_quantized(name, (16, 128), recipe) for name, recipe in recipes.items()}
    tensors: Tensors = {}
    for name, recipe in recipes.items():
        tensors |= store(name, drawn[name], recipe)
    rules = {"dynamic": {"+:key": {"sym": False}, "+:value": {"group_size": 32}}}
    write_json(
        tmp_path / "config.json", {"quantization_config": describe(recipes["query"]) | rules}
    )
    write_safetensors(tmp_path / "model.safetensors", tensors)
    checkpoint = open_checkpoint(tmp_path)
    stored_format = find_format(checkpoint.config)
    assert stored_format is not None
    linears = [stored_format.open_linear(checkpoint, name, (16, 128)) for name in recipes]
    assert [linear.scheme.name for linear in linears] == [
        "int4-b64-sym",
        "int4-b64-asym",
        "int4-b32-asym",
    ]
    matrix = join_linears(linears)
    assert matrix.scheme.name == "int4-b32-asym"
    expected = np.concatenate([linear.dequantize() for linear in drawn.values()])
    np.testing.assert_array_equal(matrix.read_weight(), expected)
    zero_points = matrix.read_rows(0, 0, 16).zero_points
    assert zero_points is not None and (zero_points == 8).all()


def test_one_order_for_all_three(tmp_path: Path) -> None:
    recipe = Recipe(GPTQ, has_order=True)
    expected = write_attention(tmp_path / "x", dict.fromkeys("qkv", recipe))
    matrix = open_matrices(tmp_path / "x")["layers.0.qkv_proj.weight"]
    assert matrix.order is not None
    within_groups = matrix.order.reshape(2, 32)
    assert (np.diff(within_groups) > 0).all()  # the same order wherever it is computed
    np.testing.assert_array_equal(matrix.read_weight(), expected)
    values = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    stored = np.concatenate([dequantize(matrix.read_rows(*c)) for c in matrix.iterate_chunks()])
    # Sums of 64 products in another order: 64 roundings of 2^-24 of values up to about 64.
    np.testing.assert_allclose(values[:, matrix.order] @ stored.T, values @ expected.T, atol=3e-4)


@pytest.mark.parametrize("has_order", [True, False])
def test_orders_that_differ(tmp_path: Path, has_order: bool) -> None:
    recipe = Recipe(GPTQ, has_order=True)
    other = draw_quantized(f"{LAYER}other.v_proj", (32, 64), replace(recipe, has_order=has_order))

    def change(tensors: Tensors) -> Tensors:
        return tensors | store(f"{ATTENTION}v_proj", other, recipe)

    write_attention(tmp_path / "x", dict.fromkeys("qkv", recipe), change)
    words = (
        f"{ATTENTION}q_proj and {ATTENTION}v_proj store their inputs in different orders",
        "without desc_act",
    )
    refuse(tmp_path / "x", UnsupportedModelError, *words)


def test_bits_that_differ(tmp_path: Path) -> None:
    four, eight = Recipe(GPTQ), Recipe(GPTQ, bits=8)
    write_attention(tmp_path / "x", {"q": four, "k": eight, "v": eight})
    set_dynamic(tmp_path / "x", {"+:.*[kv]_proj": {"bits": 8}}, four)
    words = (f"{ATTENTION}q_proj has 4 bits and {ATTENTION}k_proj has 8", "the same bits")
    refuse(tmp_path / "x", UnsupportedModelError, *words)


def test_one_of_three_is_not_quantized(tmp_path: Path) -> None:
    write_attention(tmp_path / "x", dict.fromkeys("qv", Recipe(AWQ)))
    words = (f"{ATTENTION}q_proj is quantized but {ATTENTION}k_proj is not", "or neither")
    refuse(tmp_path / "x", UnsupportedModelError, *words)


# --- what is beside


def test_no_linear_is_quantized(tmp_path: Path) -> None:
    """A tensor is missing, so that the settings are no mere leftover of float weights."""
    write_small(tmp_path / "x")
    replace_tensors(tmp_path / "x", drop=["model.norm.weight"])
    edit_config(tmp_path / "x", quantization_config=describe(Recipe(GPTQ)))
    words = (
        "quant_method='gptq' but no linear layer is stored that way",
        "belongs to these weights",
    )
    with pytest.raises(CheckpointError) as caught:
        open_source(tmp_path / "x")
    assert_sentence(str(caught.value), *words)


def test_an_embedding_of_integers(tmp_path: Path) -> None:
    recipe = Recipe(COMPRESSED)
    prefix = "model.embed_tokens"
    linear = draw_quantized(prefix, (320, 64), recipe)

    def change(tensors: Tensors) -> Tensors:
        del tensors[f"{prefix}.weight"]
        return tensors | store(prefix, linear, recipe)

    write_attention(tmp_path / "x", dict.fromkeys("qkv", recipe), change)
    words = (f"{prefix} is stored as compressed-tensors", "supported are quantized linears only")
    refuse(tmp_path / "x", UnsupportedModelError, *words)


@pytest.mark.parametrize("name", ["model.norm", f"{LAYER}input_layernorm"])
def test_parts_of_a_vector_are_left_over(tmp_path: Path, name: str) -> None:
    """They belong to nothing; whoever checks the tensors' names says so."""

    def change(tensors: Tensors) -> Tensors:
        return tensors | {f"{name}.qweight": from_array(np.zeros((1, 1), np.float32))}

    write_attention(tmp_path / "x", dict.fromkeys("qkv", Recipe(AWQ)), change)
    matrices = open_matrices(tmp_path / "x")
    assert list(matrices) == ["layers.0.qkv_proj.weight"]


def write_bias(folder: Path, values: FloatArray, recipe: Recipe) -> None:
    """A bias that glm4's output projection does not have."""
    prefix = f"{ATTENTION}o_proj"
    linear: Quantized = draw_quantized(prefix, (64, 64), recipe)

    def change(tensors: Tensors) -> Tensors:
        del tensors[f"{prefix}.weight"]
        bias = {f"{prefix}.bias": floats(values, "F16")}
        return tensors | store(prefix, linear, recipe) | bias

    write_attention(folder, dict.fromkeys("qkv", recipe), change)


def test_a_bias_of_zeros_is_part_of_it(tmp_path: Path) -> None:
    """AutoGPTQ's layers always had one; q, k and v have their own, which are none of the matrix."""
    write_bias(tmp_path / "x", np.zeros(64, np.float32), Recipe(GPTQ))
    matrices = open_matrices(tmp_path / "x")
    assert f"{ATTENTION}o_proj.bias" in matrices["layers.0.o_proj.weight"].tensors
    assert not {n for n in matrices["layers.0.qkv_proj.weight"].tensors if n.endswith("bias")}


@pytest.mark.parametrize("count", [64, 63])
def test_a_bias_that_the_model_has_not(tmp_path: Path, count: int) -> None:
    values = np.zeros(count, np.float32)
    values[-1] = count == 64
    write_bias(tmp_path / "x", values, Recipe(GPTQ))
    words = (f"{ATTENTION}o_proj.bias exists and is not all zero", "the model has no such bias")
    refuse(tmp_path / "x", CheckpointError, *words)


def test_the_small_config_is_the_one_meant() -> None:
    assert CONFIG["attention_bias"] is True
    assert SHAPES[f"{ATTENTION}q_proj.weight"] == (64, 64)
