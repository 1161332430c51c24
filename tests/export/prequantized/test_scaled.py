"""FP8 and int8 weights with scales: read as floats by the definition, and quantized anew."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm_export import Adapter, ExportOptions, export
from glm_export.checkpoint.prequantized.scaled import decode_bytes
from glm_export.checkpoint.source_model import open_source
from glm_export.errors import CheckpointError, ExportError, UnsupportedModelError
from glm_runtime.folder.manifest import read_manifest
from support.broken_checkpoints import (
    SHAPES,
    RawTensor,
    edit_config,
    from_array,
    replace_tensors,
    write_small,
)
from support.lora_adapters import LAYER, define_change, draw_change, write_adapter
from support.prequantized_tensors import (
    Recipe,
    describe,
    draw_quantized,
    floats,
    store,
)
from support.refusals import assert_sentence
from support.scaled_weights import (
    FP8,
    TYPES,
    Floats,
    ScaledRecipe,
    decode,
    describe_scaled,
    draw_scaled,
)

LINEARS = [name for name in SHAPES if "proj.weight" in name]
QUERY = f"{LAYER}self_attn.q_proj"
RECIPES = [
    ScaledRecipe(strategy="tensor", block=(1 << 20, 1 << 20)),
    ScaledRecipe(strategy="channel", scale_dtype="BF16"),
    ScaledRecipe(strategy="group", block=(1, 32), scale_dtype="F16"),
    ScaledRecipe(strategy="block", block=(24, 40)),
    ScaledRecipe(strategy="channel", dtype="F8_E5M2"),
    ScaledRecipe(strategy="channel", dtype="I8"),
    ScaledRecipe(FP8, "block", (24, 40)),
    ScaledRecipe(FP8, "block", (128, 128), scale_dtype="BF16"),
]


def write_scaled(folder: Path, recipe: ScaledRecipe, **config: Any) -> dict[str, Floats]:
    """A small checkpoint whose linear layers are stored so; their weights by the definition."""
    write_small(folder)
    tensors: dict[str, RawTensor] = {}
    weights = {}
    for name in LINEARS:
        shape = SHAPES[name]
        prefix = name.removesuffix(".weight")
        stored, weights[name] = draw_scaled(prefix, (shape[0], shape[1]), recipe)
        tensors |= stored
    replace_tensors(folder, drop=LINEARS, add=tensors)
    edit_config(folder, quantization_config=describe_scaled(recipe) | config)
    return weights


@pytest.mark.parametrize("dtype", TYPES)
def test_every_byte(dtype: str) -> None:
    found, expected = decode_bytes(dtype), decode(np.arange(256, dtype=np.uint8), dtype)
    np.testing.assert_array_equal(found, expected)
    numbers = ~np.isnan(expected)  # -0 is not 0; NaN has no sign
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(expected[numbers]))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_weights_are_those_of_the_definition(tmp_path: Path, recipe: ScaledRecipe) -> None:
    """Whole, and rows out of the middle of blocks."""
    weights = write_scaled(tmp_path / "x", recipe)
    source = open_source(tmp_path / "x")
    assert source.stored_format == "" and not source.matrices
    for name, expected in weights.items():
        np.testing.assert_array_equal(source.checkpoint.read(name), expected, err_msg=name)
        for start, stop in ((5, 6), (20, 31), (0, len(expected))):
            found = source.checkpoint.read_rows(name, start, stop)
            np.testing.assert_array_equal(found, expected[start:stop])
    parts = [weights[f"{LAYER}self_attn.{part}_proj.weight"] for part in "qkv"]
    found = source.read_parameter("layers.0.qkv_proj.weight")
    np.testing.assert_array_equal(found, np.concatenate(parts))
    note = f"6 weights stored by {recipe.method} were read as floats; they are quantized as"
    assert source.notes == (f"{note} requested.",)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_number_for_a_matrix(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """fp8 without weight_block_size; some programs store a number without dimensions."""
    recipe = ScaledRecipe(FP8, "tensor", (1 << 20, 1 << 20))
    weights = write_scaled(tmp_path / "x", recipe, weight_block_size=None)
    stored: dict[str, RawTensor] = {}
    for name in LINEARS:
        prefix = name.removesuffix(".weight")
        tensors, _ = draw_scaled(prefix, (SHAPES[name][0], SHAPES[name][1]), recipe)
        scale = tensors[f"{prefix}.weight_scale_inv"]
        stored |= tensors | {f"{prefix}.weight_scale_inv": RawTensor("F32", shape, scale.data)}
    replace_tensors(tmp_path / "x", drop=LINEARS, add=stored)
    found = open_source(tmp_path / "x").checkpoint.read(f"{QUERY}.weight")
    np.testing.assert_array_equal(found, weights[f"{QUERY}.weight"])


def test_scales_that_are_powers_of_two(tmp_path: Path) -> None:
    """`scale_fmt` ue8m0: one byte, the exponent of float32."""
    recipe = ScaledRecipe(FP8, "block", (128, 128))
    weights = write_scaled(tmp_path / "x", recipe)
    tensors, weight = draw_scaled(QUERY, (64, 64), recipe)
    scale = np.frombuffer(tensors[f"{QUERY}.weight_scale_inv"].data, "<f4")
    other = {f"{QUERY}.weight_scale_inv": RawTensor("F8_E8M0", (1, 1), bytes([124]))}
    add_scaled(tmp_path / "x", recipe, other)
    found = open_source(tmp_path / "x").checkpoint.read(f"{QUERY}.weight")
    np.testing.assert_allclose(found, weight / scale * np.float32(1 / 8), rtol=1e-6)
    assert weights


def add_scaled(folder: Path, recipe: ScaledRecipe, other: Mapping[str, RawTensor]) -> None:
    """The tensors of `write_scaled` again, with others in place of some or beside them."""
    tensors: dict[str, RawTensor] = {}
    for name in LINEARS:
        prefix = name.removesuffix(".weight")
        tensors |= draw_scaled(prefix, (SHAPES[name][0], SHAPES[name][1]), recipe)[0]
    replace_tensors(folder, drop=LINEARS, add={**tensors, **other})


def test_an_export_is_that_of_the_dequantized_weights(tmp_path: Path) -> None:
    """Calibrated, too: the same bytes; and the manifest names the scales."""
    weights = write_scaled(tmp_path / "in", ScaledRecipe(FP8, "block", (24, 40)))
    write_small(tmp_path / "floats")
    replace_tensors(tmp_path / "floats", add={n: from_array(w) for n, w in weights.items()})
    for name in ("in", "floats"):
        export(ExportOptions(tmp_path / name, tmp_path / f"{name}-out", calibration_tokens=128))
    for name in ("model.onnx", "model.onnx.data"):
        found, expected = ((tmp_path / f"{one}-out" / name) for one in ("in", "floats"))
        assert found.read_bytes() == expected.read_bytes()
    sources = {one.name: one.sources for one in read_manifest(tmp_path / "in-out").tensors}
    names = [one.tensor for one in sources["layers.0.down_proj.weight"]]
    assert names == [f"{LAYER}mlp.down_proj.weight", f"{LAYER}mlp.down_proj.weight_scale_inv"]


def test_an_adapter_is_merged_into_the_floats(tmp_path: Path) -> None:
    weights = write_scaled(tmp_path / "in", ScaledRecipe())
    own = draw_change({QUERY: (64, 64)})
    source = open_source(tmp_path / "in", adapters=[Adapter(write_adapter(tmp_path / "lora", own))])
    expected = weights[f"{QUERY}.weight"] + define_change(own, QUERY, 2.0)
    np.testing.assert_array_equal(source.checkpoint.read(f"{QUERY}.weight"), expected)
    origins = [name for _, name in source.checkpoint.list_origins(f"{QUERY}.weight")]
    assert origins[:2] == [f"{QUERY}.weight", f"{QUERY}.weight_scale"] and len(origins) == 4


def test_static_activations_are_not_needed(tmp_path: Path) -> None:
    recipe = ScaledRecipe(strategy="tensor", block=(1 << 20, 1 << 20))
    weights = write_scaled(tmp_path / "x", recipe)
    add_scaled(tmp_path / "x", recipe, {f"{QUERY}.input_scale": from_array(np.ones(1, np.float32))})
    found = open_source(tmp_path / "x").checkpoint.read(f"{QUERY}.weight")
    np.testing.assert_array_equal(found, weights[f"{QUERY}.weight"])


def test_some_layers_packed_and_some_of_8_bits(tmp_path: Path) -> None:
    """compressed-tensors' "mixed-precision": each group names its format; down_proj is packed."""
    down, recipe = f"{LAYER}mlp.down_proj", ScaledRecipe()
    packed = Recipe("compressed-tensors", group_size=32, is_symmetric=True)
    weights = write_scaled(tmp_path / "x", recipe)
    linear = draw_quantized(down, (64, 96), packed)
    tensors: dict[str, RawTensor] = store(down, linear, packed)
    for name in LINEARS:
        prefix = name.removesuffix(".weight")
        if prefix != down:
            tensors |= draw_scaled(prefix, (SHAPES[name][0], SHAPES[name][1]), recipe)[0]
    replace_tensors(tmp_path / "x", drop=LINEARS, add=tensors)
    groups = describe_scaled(recipe)["config_groups"]
    group = describe(packed)["config_groups"]["group_0"]
    groups["group_1"] = group | {"targets": ["re:.*down_proj"], "format": "pack-quantized"}
    both = describe_scaled(recipe) | {"format": "mixed-precision", "config_groups": groups}
    edit_config(tmp_path / "x", quantization_config=both)
    source = open_source(tmp_path / "x")
    assert list(source.matrices) == ["layers.0.down_proj.weight"]
    assert any("they stay floats unless --set" in note for note in source.notes)
    found = source.read_parameter("layers.0.down_proj.weight")
    np.testing.assert_array_equal(found, linear.dequantize())
    np.testing.assert_array_equal(
        source.read_parameter("layers.0.o_proj.weight"), weights[f"{LAYER}self_attn.o_proj.weight"]
    )


# --- refusals


def refuse(folder: Path, kind: type[ExportError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        open_source(folder)
    assert caught.type is kind
    assert_sentence(str(caught.value), *words)


@pytest.mark.parametrize(
    ("part", "tensor", "words"),
    [
        (
            "weight_scale",
            None,
            ("weight_scale [64, 1] is missing, which compressed-tensors needs",),
        ),
        ("weight_scale", floats(np.ones((2, 3), np.float32), "F32"), ("is [2, 3] but", "[64, 1]")),
        ("weight_scale", RawTensor("I32", (64, 1), bytes(256)), ("dtype I32", "F32 or F16")),
        ("weight", RawTensor("F8_E4M3", (64, 32), bytes(2048)), ("is [64, 32] but", "[64, 64]")),
    ],
)
def test_tensors(
    tmp_path: Path, part: str, tensor: RawTensor | None, words: tuple[str, ...]
) -> None:
    recipe = ScaledRecipe()
    write_scaled(tmp_path / "x", recipe)
    if tensor is not None:
        add_scaled(tmp_path / "x", recipe, {f"{QUERY}.{part}": tensor})
    else:
        stored: dict[str, RawTensor] = {}
        for name in LINEARS:
            prefix = name.removesuffix(".weight")
            stored |= draw_scaled(prefix, (SHAPES[name][0], SHAPES[name][1]), recipe)[0]
        del stored[f"{QUERY}.{part}"]
        replace_tensors(tmp_path / "x", drop=LINEARS, add=stored)
    refuse(tmp_path / "x", CheckpointError, f"{QUERY}.{part}", *words)


def test_a_group_that_says_packed(tmp_path: Path) -> None:
    write_scaled(tmp_path / "x", ScaledRecipe())
    edit_config(tmp_path / "x", quantization_config=describe(Recipe("compressed-tensors")))
    words = (f"{QUERY}.weight has dtype F8_E4M3", "format='pack-quantized' for it")
    refuse(tmp_path / "x", CheckpointError, *words)


@pytest.mark.parametrize(
    ("recipe", "values", "words"),
    [
        (RECIPES[6], {"weight_block_size": [128]}, ("weight_block_size=[128]", "two whole")),
        (RECIPES[6], {"weight_block_size": [0, 128]}, ("[0, 128]", "two whole numbers")),
        (RECIPES[6], {"weight_block_size": [True, 1]}, ("[True, 1]", "two whole numbers")),
        (RECIPES[6], {"fmt": "e3m4"}, ("fmt='e3m4'", "'e4m3'")),
        (RECIPES[6], {"activation_scheme": "none"}, ("activation_scheme='none'", "'dynamic'")),
        (RECIPES[3], {"block_structure": None}, ("block_structure=None", "two whole numbers")),
        (RECIPES[1], {"symmetric": False}, ("symmetric=False", "True")),
        (RECIPES[1], {"type": "fp"}, ("type='fp'", "'float'")),
        (RECIPES[1], {"strategy": "tensor_group"}, ("'tensor_group'", "'block'")),
        (RECIPES[2], {"group_size": 0}, ("group_size=0", "-1 or a whole number")),
    ],
    ids=str,
)
def test_settings(
    tmp_path: Path, recipe: ScaledRecipe, values: dict[str, Any], words: tuple[str, ...]
) -> None:
    write_scaled(tmp_path / "x", recipe)
    config = describe_scaled(recipe)
    if recipe.method == FP8:
        config |= values
    else:
        config["config_groups"]["group_0"]["weights"] |= values
    edit_config(tmp_path / "x", quantization_config=config)
    refuse(tmp_path / "x", UnsupportedModelError, *words)


def test_quantization_options_of_8_bit_numbers_are_taken(tmp_path: Path) -> None:
    write_scaled(tmp_path / "x", ScaledRecipe())
    options = ExportOptions(tmp_path / "x", tmp_path / "a", quant="int8", block_size=32)
    assert export(options).bits_per_weight < 11
