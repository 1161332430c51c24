"""Where the settings of a quantization are, those that were left over, and auto-round."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm_export import ExportOptions, export
from glm_export.checkpoint.source_model import open_source
from glm_export.errors import CheckpointError, ExportError, OptionsError, UnsupportedModelError
from glm_runtime.folder.manifest import read_manifest
from support.broken_checkpoints import (
    SHAPES,
    RawTensor,
    edit_config,
    replace_tensors,
    write_json,
    write_small,
)
from support.lora_adapters import LAYER
from support.prequantized_tensors import GPTQ, Recipe, describe, draw_quantized, store
from support.refusals import assert_sentence

LINEARS = [name for name in SHAPES if "proj.weight" in name]
QUERY = f"{LAYER}self_attn.q_proj"


def refuse(folder: Path, kind: type[ExportError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        open_source(folder)
    assert caught.type is kind
    assert_sentence(str(caught.value), *words)


def write_gptq(folder: Path) -> dict[str, Any]:
    """A GPTQ checkpoint whose config.json does not say so; its settings."""
    write_small(folder)
    recipe = Recipe(GPTQ, group_size=32)
    tensors: dict[str, RawTensor] = {}
    for name in LINEARS:
        prefix = name.removesuffix(".weight")
        linear = draw_quantized(prefix, (SHAPES[name][0], SHAPES[name][1]), recipe)
        tensors |= store(prefix, linear, recipe)
    replace_tensors(folder, drop=LINEARS, add=tensors)
    return describe(recipe)


def test_quantize_config_alone(tmp_path: Path) -> None:
    """AutoGPTQ wrote its settings into a file of its own, without quant_method."""
    settings = write_gptq(tmp_path / "x")
    refuse(tmp_path / "x", CheckpointError, "quantization_config does not describe")
    del settings["quant_method"]
    write_json(tmp_path / "x" / "quantize_config.json", settings)
    source = open_source(tmp_path / "x")
    assert source.stored_format == GPTQ
    expected = draw_quantized(QUERY, (64, 64), Recipe(GPTQ, group_size=32)).dequantize()
    found = source.read_parameter("layers.0.qkv_proj.weight")[:64]
    np.testing.assert_array_equal(found, expected)
    options = ExportOptions(tmp_path / "x", tmp_path / "out", verify="none")
    export(options)
    assert "quantize_config.json" in read_manifest(tmp_path / "out").source.files
    (tmp_path / "x" / "quantize_config.json").write_text("{")
    refuse(tmp_path / "x", CheckpointError, "quantize_config.json is not readable JSON")


def test_config_json_comes_before_quantize_config(tmp_path: Path) -> None:
    settings = write_gptq(tmp_path / "x")
    edit_config(tmp_path / "x", quantization_config=settings)
    write_json(tmp_path / "x" / "quantize_config.json", settings | {"bits": 8})
    assert open_source(tmp_path / "x").stored_format == GPTQ


def test_the_file_of_autoawq(tmp_path: Path) -> None:
    write_small(tmp_path / "x")
    recipe = Recipe("awq", group_size=32)
    tensors: dict[str, RawTensor] = {}
    for name in LINEARS:
        prefix = name.removesuffix(".weight")
        linear = draw_quantized(prefix, (SHAPES[name][0], SHAPES[name][1]), recipe)
        tensors |= store(prefix, linear, recipe)
    replace_tensors(tmp_path / "x", drop=LINEARS, add=tensors)
    settings = {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}
    write_json(tmp_path / "x" / "quant_config.json", settings)
    assert open_source(tmp_path / "x").stored_format == "awq"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (describe(Recipe(GPTQ)), "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "without quant_method"),
        ({"quant_method": "fp8"}, "fp8"),
    ],
    ids=str,
)
def test_settings_that_were_left_over(tmp_path: Path, settings: dict[str, Any], name: str) -> None:
    """A merged or dequantized model whose config.json still names the old format."""
    write_small(tmp_path / "x")
    edit_config(tmp_path / "x", quantization_config=settings)
    report = export(ExportOptions(tmp_path / "x", tmp_path / "out", method="rtn"))
    assert any(f"({name}) were ignored, since every weight is" in note for note in report.notes)
    write_small(tmp_path / "y")
    export(ExportOptions(tmp_path / "y", tmp_path / "other", method="rtn"))
    found, expected = ((tmp_path / one / "model.onnx.data") for one in ("out", "other"))
    assert found.read_bytes() == expected.read_bytes()


def test_quantization_options_of_packed_codes_are_refused(tmp_path: Path) -> None:
    write_gptq(tmp_path / "x")
    edit_config(tmp_path / "x", quantization_config=describe(Recipe(GPTQ, group_size=32)))
    with pytest.raises(OptionsError, match="quantized already"):
        export(ExportOptions(tmp_path / "x", tmp_path / "out", quant="int8"))


# --- auto-round


@pytest.mark.parametrize(
    ("packing", "recipe"),
    [
        ("auto_round:auto_gptq", Recipe(GPTQ, group_size=32)),
        ("auto_round:gptq", Recipe(GPTQ, 8, 32, is_symmetric=True)),
        ("auto_round", Recipe(GPTQ, group_size=32, version="gptq_v2")),
        ("auto_round:gptqmodel", Recipe(GPTQ, group_size=32, version="gptq_v2")),
        ("auto_round:auto_awq", Recipe("awq", group_size=32)),
        (None, Recipe(GPTQ, group_size=32, is_symmetric=True)),
    ],
)
def test_auto_round(tmp_path: Path, packing: str | None, recipe: Recipe) -> None:
    """Stored as GPTQ or AWQ stores it, but for down_proj, which stays float."""
    write_small(tmp_path / "x")
    down = f"{LAYER}mlp.down_proj"
    kept = [name for name in LINEARS if name != f"{down}.weight"]
    tensors: dict[str, RawTensor] = {}
    for name in kept:
        prefix = name.removesuffix(".weight")
        linear = draw_quantized(prefix, (SHAPES[name][0], SHAPES[name][1]), recipe)
        tensors |= store(prefix, linear, recipe)
    replace_tensors(tmp_path / "x", drop=kept, add=tensors)
    settings = {
        "quant_method": "auto-round",
        "autoround_version": "0.14.2",
        "bits": recipe.bits,
        "group_size": 32,
        "sym": recipe.is_symmetric,
        "data_type": "int",
        "packing_format": packing,
        "extra_config": {down: {"bits": 16, "data_type": "float"}},
        "iters": 200,
    }
    edit_config(tmp_path / "x", quantization_config=settings)
    source = open_source(tmp_path / "x")
    expected = draw_quantized(QUERY, (64, 64), recipe).dequantize()
    found = source.read_parameter("layers.0.qkv_proj.weight")[:64]
    np.testing.assert_array_equal(found, expected)
    assert "layers.0.down_proj.weight" not in source.matrices


@pytest.mark.parametrize("name", [f"{LAYER}mlp.down_proj", r".*down.*"])
def test_a_layer_of_auto_round_with_other_settings(tmp_path: Path, name: str) -> None:
    write_small(tmp_path / "x")
    down = f"{LAYER}mlp.down_proj"
    recipe = Recipe(GPTQ, 8, 32)
    tensors = store(down, draw_quantized(down, (64, 96), recipe), recipe)
    replace_tensors(tmp_path / "x", drop=[f"{down}.weight"], add=tensors)
    settings = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": False}
    settings |= {"extra_config": {name: {"bits": 8}}, "packing_format": "auto_round:auto_gptq"}
    edit_config(tmp_path / "x", quantization_config=settings)
    found = open_source(tmp_path / "x").read_parameter("layers.0.down_proj.weight")
    np.testing.assert_array_equal(found, draw_quantized(down, (64, 96), recipe).dequantize())
    awq = settings | {"packing_format": "auto_round:auto_awq"}
    edit_config(tmp_path / "x", quantization_config=awq)
    words = ("extra_config gives", "other settings", "'auto_round:auto_gptq'")
    refuse(tmp_path / "x", UnsupportedModelError, *words)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"packing_format": "auto_round:llm_compressor"}, ("'auto_round:llm_compressor'",)),
        ({"packing_format": "auto_round:fp8_static"}, ("'auto_round:fp8_static'", "auto_gptq")),
        ({"data_type": "mx_fp"}, ("data_type='mx_fp'", "'int'")),
        ({"bits": 2}, ("bits=2", "4 or 8")),
        ({"extra_config": {"x": {"bits": 4, "data_type": "mx_fp"}}}, ("data_type='mx_fp'",)),
    ],
    ids=str,
)
def test_other_kinds_of_auto_round(
    tmp_path: Path, values: dict[str, Any], words: tuple[str, ...]
) -> None:
    write_gptq(tmp_path / "x")
    settings = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": False}
    edit_config(tmp_path / "x", quantization_config=settings | values)
    refuse(tmp_path / "x", UnsupportedModelError, *words)
