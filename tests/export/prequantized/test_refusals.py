"""Linears whose tensors contradict config.json, or that no kernel computes, are refused by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm_export.checkpoint import name_patterns
from glm_export.checkpoint.checkpoint import open_checkpoint
from glm_export.checkpoint.prequantized import find_format
from glm_export.errors import CheckpointError, ExportError, UnsupportedModelError
from support.broken_checkpoints import RawTensor, write_json, write_safetensors
from support.prequantized_tensors import (
    AWQ,
    COMPRESSED,
    GPTQ,
    Recipe,
    describe,
    draw_quantized,
    integers,
    replace_part,
    store,
)
from support.refusals import assert_sentence

PREFIX = "model.layers.0.mlp.down_proj"
SHAPE = (16, 64)
GPTQ_V1 = Recipe(GPTQ)
Tensors = dict[str, RawTensor]
Change = Callable[[Tensors], Tensors]


def open_changed(folder: Path, recipe: Recipe, change: Change, **values: Any) -> None:
    """Open one linear whose tensors were changed, under a config that was changed."""
    tensors = change(store(PREFIX, draw_quantized(PREFIX, SHAPE, recipe), recipe))
    config = {"quantization_config": describe(recipe) | values}
    write_json(folder / "config.json", config)
    write_safetensors(folder / "model.safetensors", tensors)
    checkpoint = open_checkpoint(folder)
    stored_format = find_format(checkpoint.config)
    assert stored_format is not None
    stored_format.open_linear(checkpoint, PREFIX, SHAPE)


def refuse(
    folder: Path, recipe: Recipe, change: Change, kind: type[ExportError], *expected: str
) -> None:
    with pytest.raises(kind) as caught:
        open_changed(folder, recipe, change)
    assert caught.type is kind
    assert_sentence(str(caught.value), *expected)


def keep(tensors: Tensors) -> Tensors:
    return tensors


def drop(part: str) -> Change:
    return lambda tensors: replace_part(tensors, f"{PREFIX}.{part}", None)


def put(part: str, tensor: RawTensor) -> Change:
    return lambda tensors: replace_part(tensors, f"{PREFIX}.{part}", tensor)


def fill_words(part: str, word: int, shape: tuple[int, int]) -> Change:
    count = shape[0] * shape[1]
    return put(part, RawTensor("I32", shape, np.full(count, word, "<u4").tobytes()))


def test_settings_that_change_nothing(tmp_path: Path) -> None:
    """Capitals, and values that other programs write or leave out."""
    open_changed(tmp_path, GPTQ_V1, keep, checkpoint_format=None, format="GPTQ", lm_head=False)
    open_changed(tmp_path, Recipe(AWQ), keep, version="GEMM", modules_to_not_convert=["lm_head"])
    group = describe(Recipe(COMPRESSED))["config_groups"]["group_0"]
    for changed in ({"actorder": "static"}, {"actorder": False}, {"strategy": None}):
        weights = group["weights"] | changed
        groups = {"group_0": group | {"weights": weights}}
        open_changed(tmp_path, Recipe(COMPRESSED), keep, config_groups=groups, sparsity_config={})


# --- tensors


@pytest.mark.parametrize(
    ("recipe", "part"),
    [
        (GPTQ_V1, "qweight"),
        (GPTQ_V1, "qzeros"),
        (GPTQ_V1, "scales"),
        (Recipe(GPTQ, has_order=True), "g_idx"),
        (Recipe(AWQ), "qweight"),
        (Recipe(AWQ), "qzeros"),
        (Recipe(AWQ), "scales"),
        (Recipe(COMPRESSED), "weight_packed"),
        (Recipe(COMPRESSED), "weight_scale"),
        (Recipe(COMPRESSED), "weight_shape"),
        (Recipe(COMPRESSED), "weight_zero_point"),
        (Recipe(COMPRESSED, has_order=True), "weight_g_idx"),
    ],
)
def test_a_missing_tensor(tmp_path: Path, recipe: Recipe, part: str) -> None:
    found = (f"{PREFIX}.{part} [", "] is missing", f"which {recipe.method} needs")
    refuse(tmp_path, recipe, drop(part), CheckpointError, *found)


@pytest.mark.parametrize(
    ("recipe", "part", "expected"),
    [
        (GPTQ_V1, "qweight", "[8, 16]"),
        (GPTQ_V1, "qzeros", "[2, 2]"),
        (GPTQ_V1, "g_idx", "[64]"),
        (Recipe(GPTQ, bits=8), "qweight", "[16, 16]"),
        (Recipe(GPTQ, bits=8), "qzeros", "[2, 4]"),
        (Recipe(AWQ), "qweight", "[64, 2]"),
        (Recipe(AWQ), "qzeros", "[2, 2]"),
        (Recipe(COMPRESSED), "weight_packed", "[16, 8]"),
        (Recipe(COMPRESSED), "weight_zero_point", "[2, 2]"),
    ],
)
def test_a_tensor_of_another_shape_or_type(
    tmp_path: Path, recipe: Recipe, part: str, expected: str
) -> None:
    name = f"{PREFIX}.{part}"
    other = put(part, RawTensor("I32", (3, 5), bytes(60)))
    words = (f"{name} is [3, 5] but config.json makes it {expected}", "check quantization_config")
    refuse(tmp_path, recipe, other, CheckpointError, *words)
    half = put(part, RawTensor("F16", (3, 5), bytes(30)))
    words = (f"{name} has dtype F16 where {recipe.method} needs I32", "belongs to these weights")
    refuse(tmp_path, recipe, half, CheckpointError, *words)


@pytest.mark.parametrize(
    ("recipe", "part", "expected"),
    [
        (GPTQ_V1, "scales", "[2, 16]"),
        (Recipe(AWQ), "scales", "[2, 16]"),
        (Recipe(COMPRESSED), "weight_scale", "[16, 2]"),
        (Recipe(COMPRESSED, group_size=-1), "weight_scale", "[16, 1]"),
    ],
)
def test_scales_of_another_shape_or_type(
    tmp_path: Path, recipe: Recipe, part: str, expected: str
) -> None:
    name = f"{PREFIX}.{part}"
    other = put(part, RawTensor("F16", (3, 5), bytes(30)))
    words = (f"{name} is [3, 5] but config.json makes it {expected}", "check quantization_config")
    refuse(tmp_path, recipe, other, CheckpointError, *words)
    small = put(part, RawTensor("F8_E4M3", (3, 5), bytes(15)))
    words = (f"{name} has dtype F8_E4M3 where {recipe.method} needs F32 or F16 or BF16",)
    refuse(tmp_path, recipe, small, CheckpointError, *words)


def test_a_shape_that_is_not_the_configs(tmp_path: Path) -> None:
    other = put("weight_shape", integers(np.array([16, 63]), "I64"))
    words = (f"{PREFIX}.weight_shape says [16, 63] but config.json makes it [16, 64]",)
    refuse(tmp_path, Recipe(COMPRESSED), other, CheckpointError, *words)


# --- what the kernels cannot express


@pytest.mark.parametrize("method", [GPTQ, AWQ, COMPRESSED])
@pytest.mark.parametrize("group_size", [16, 24, 1])
def test_a_group_that_no_block_divides(tmp_path: Path, method: str, group_size: int) -> None:
    recipe = Recipe(method, group_size=group_size)
    words = (f"{PREFIX} has 64 inputs in groups of {group_size}", "blocks of 32, 64, 128")
    refuse(tmp_path, recipe, keep, UnsupportedModelError, *words)


def test_inputs_that_no_block_divides(tmp_path: Path) -> None:
    recipe = Recipe(GPTQ)
    write_json(tmp_path / "config.json", {"quantization_config": describe(recipe)})
    write_safetensors(tmp_path / "model.safetensors", {"x": RawTensor("F32", (1,), bytes(4))})
    checkpoint = open_checkpoint(tmp_path)
    stored_format = find_format(checkpoint.config)
    assert stored_format is not None
    with pytest.raises(UnsupportedModelError) as caught:
        stored_format.open_linear(checkpoint, PREFIX, (16, 48))
    assert_sentence(str(caught.value), f"{PREFIX} has 48 inputs in groups of 32")


def test_awq_with_outputs_that_fill_no_word(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"quantization_config": describe(Recipe(AWQ))})
    write_safetensors(tmp_path / "model.safetensors", {"x": RawTensor("F32", (1,), bytes(4))})
    checkpoint = open_checkpoint(tmp_path)
    stored_format = find_format(checkpoint.config)
    assert stored_format is not None
    with pytest.raises(UnsupportedModelError) as caught:
        stored_format.open_linear(checkpoint, PREFIX, (20, 64))
    assert_sentence(str(caught.value), f"{PREFIX} has 20 outputs, not a multiple of 8 as awq needs")


@pytest.mark.parametrize(("bits", "largest", "word"), [(4, 15, 0xF0), (8, 255, 0xFF00)])
def test_a_zero_point_above_the_largest_code(
    tmp_path: Path, bits: int, largest: int, word: int
) -> None:
    """Stored less one, 16 is 15: programs disagree whether that means 16 or 0. In v2 it is 15."""
    shape = (2, 16 * bits // 32)
    fill = fill_words("qzeros", word, shape)
    words = (
        f"{PREFIX}.qzeros stores {largest} for group 0 of output 1, zero point {largest + 1}",
        f"which {bits} bits do not hold",
        "gptq_v2",
    )
    refuse(tmp_path, Recipe(GPTQ, bits), fill, UnsupportedModelError, *words)
    open_changed(tmp_path, Recipe(GPTQ, bits, version="gptq_v2"), fill)


@pytest.mark.parametrize(
    ("version", "word", "right"), [("gptq", 0x88888888, "gptq_v2"), ("gptq_v2", 0x77777777, "gptq")]
)
def test_symmetric_zero_points_of_the_other_version(
    tmp_path: Path, version: str, word: int, right: str
) -> None:
    """GPTQModel 5 wrote v2 zero points under the name gptq: every weight would be a scale off."""
    recipe = Recipe(GPTQ, is_symmetric=True, version=version)
    words = (
        f"{PREFIX}.qzeros stores {word & 15} everywhere",
        f"sym true in checkpoint_format {right}, but config.json says {version}",
        "correct checkpoint_format",
    )
    refuse(tmp_path, recipe, fill_words("qzeros", word, (2, 2)), CheckpointError, *words)
    open_changed(tmp_path, replace(recipe, is_symmetric=False), fill_words("qzeros", word, (2, 2)))


@pytest.mark.parametrize(
    ("groups", "group", "count", "expected"),
    [
        ([0] * 40 + [1] * 24, 0, 40, 32),
        ([0] * 24 + [1] * 40, 0, 24, 32),
        ([0] * 32 + [2] * 32, 1, 0, 32),
        ([-1] * 32 + [1] * 32, -1, 32, 0),
        ([1, 0] * 31 + [1, 1], 0, 31, 32),
    ],
)
@pytest.mark.parametrize(("method", "part"), [(GPTQ, "g_idx"), (COMPRESSED, "weight_g_idx")])
def test_groups_of_several_sizes(
    tmp_path: Path, method: str, part: str, groups: list[int], group: int, count: int, expected: int
) -> None:
    other = put(part, integers(np.array(groups), "I32"))
    words = (
        f"{PREFIX}.{part} puts {count} inputs into group {group} where {expected} are expected",
        "group_size",
    )
    refuse(tmp_path, Recipe(method, has_order=True), other, UnsupportedModelError, *words)


# --- settings of single linears


def test_dynamic_rules_of_gptqmodel(tmp_path: Path) -> None:
    """The first expression that fits a name overrides the settings; "-:" ones say unquantized."""
    recipe = Recipe(GPTQ, bits=8, group_size=64)
    rules: dict[str, Any] = {
        "-:.*": {},
        r"+:.*\.up_proj": {"bits": 4, "group_size": 128},
        r"model\.layers\.\d+\.mlp\.down": {"bits": 8, "group_size": 64},
        ".*": {"bits": 4},
    }
    open_changed(tmp_path, recipe, keep, bits=4, group_size=32, dynamic=rules)
    with pytest.raises(CheckpointError, match=r"qweight is \[16, 16\] but .* makes it \[8, 16\]"):
        open_changed(tmp_path, recipe, keep, bits=4, group_size=64, dynamic={"+:x": {"bits": 8}})


# An expression with 2^n ways to fail on n letters, which stopped the export for ever.
ENDLESS = r"(?:\w+)+(?:[\w.]+)+(?:[\w.]+)+!"


@pytest.mark.parametrize(
    ("rules", "found", "expected"),
    [
        ({"+:(": {"bits": 8}}, "names modules by '('", "not a regular expression ("),
        ({f"+:{ENDLESS}": {"bits": 8}}, f"names modules by {ENDLESS!r}", "within 2 s; check"),
        ({"+:.*": {"bits": 3}}, "bits=3", "4 or 8"),
        ({"+:.*": 8}, "dynamic +:.*=8", "an object"),
        ([], "dynamic=[]", "an object"),
    ],
)
def test_dynamic_rules_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rules: object, found: str, expected: str
) -> None:
    monkeypatch.setattr(name_patterns, "_LIMIT_S", 2)
    with pytest.raises(UnsupportedModelError) as caught:
        open_changed(tmp_path, GPTQ_V1, keep, dynamic=rules)
    assert_sentence(str(caught.value), found, expected)


def describe_groups(targets: dict[str, int]) -> dict[str, Any]:
    """config_groups of one target each, with their group sizes."""
    base = describe(Recipe(COMPRESSED))["config_groups"]["group_0"]
    return {
        f"group_{index}": base
        | {"targets": [target], "weights": base["weights"] | {"group_size": size}}
        for index, (target, size) in enumerate(targets.items())
    }


@pytest.mark.parametrize(
    "targets",
    [
        {"Linear": 32, r"re:.*down_proj$": 32, PREFIX: 64},  # its own name before expressions
        {"Linear": 32, r"re:.*down_proj$": 64},  # expressions before its class
        {r"re:.*up_proj$": 32, "Linear": 64},
    ],
)
def test_the_group_that_targets_a_linear(tmp_path: Path, targets: dict[str, int]) -> None:
    recipe = Recipe(COMPRESSED, group_size=64)
    open_changed(tmp_path, recipe, keep, config_groups=describe_groups(targets))


@pytest.mark.parametrize(
    ("target", "kind", "expected"),
    [
        ("Embedding", CheckpointError, f"{PREFIX} is stored as compressed-tensors but none"),
        (f"re:{ENDLESS}", UnsupportedModelError, f"names modules by {ENDLESS!r}, a regular"),
        (
            "re:[",
            UnsupportedModelError,
            "names modules by '[', not a regular expression (",
        ),
    ],
)
def test_a_linear_that_no_group_targets(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    kind: type[ExportError],
    expected: str,
) -> None:
    monkeypatch.setattr(name_patterns, "_LIMIT_S", 2)
    with pytest.raises(kind) as caught:
        open_changed(
            tmp_path, Recipe(COMPRESSED), keep, config_groups=describe_groups({target: 32})
        )
    assert_sentence(str(caught.value), expected)
