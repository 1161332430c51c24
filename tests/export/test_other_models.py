"""Other models and other folders in place of a checkpoint: refused by name and with advice."""

import importlib
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers.models

from glm_export import ExportOptions
from glm_export.checkpoint.checkpoint import check_folder, open_checkpoint
from glm_export.early_checks import check_evaluation_inputs
from glm_export.errors import CheckpointError, UnsupportedModelError
from glm_export.model.architectures import ARCHITECTURES, find_architecture
from support.broken_checkpoints import (
    WEIGHTS,
    RawTensor,
    edit_config,
    write_json,
    write_safetensors,
    write_small,
)
from support.refusals import assert_export_refused, assert_sentence

# config.json as released, without the keys that say nothing about the model.
CHATGLM_6B: dict[str, Any] = {
    "architectures": ["ChatGLMModel"],
    "bos_token_id": 130_004,
    "eos_token_id": 130_005,
    "gmask_token_id": 130_001,
    "hidden_size": 4096,
    "inner_hidden_size": 16_384,
    "layernorm_epsilon": 1e-5,
    "max_sequence_length": 2048,
    "model_type": "chatglm",
    "num_attention_heads": 32,
    "num_layers": 28,
    "position_encoding_2d": True,
    "vocab_size": 130_528,
}
CHATGLM3: dict[str, Any] = {
    "model_type": "chatglm",
    "ffn_hidden_size": 13_696,
    "padded_vocab_size": 65_024,
    "hidden_size": 4096,
}
GLM_10B: dict[str, Any] = {
    "model_type": "glm",
    "architectures": ["GLMModel"],
    "block_position_encoding": True,
    "hidden_size": 4096,
    "num_layers": 48,
    "vocab_size": 50_304,
}
VISION = {"vision_config": {"hidden_size": 1792}}


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (CHATGLM_6B, "ChatGLM-6B"),
        ({**CHATGLM_6B, "quantization_bit": 4}, "ChatGLM-6B"),
        ({**CHATGLM_6B, "image_length": 32}, "VisualGLM-6B"),
        ({**CHATGLM3, **VISION}, "GLM-4V-9B"),
        ({"model_type": "glm", "hidden_size": 2048, **VISION}, "GLM-Edge-V"),
        (GLM_10B, "GLM-10B"),
        ({"model_type": "glm4v"}, "GLM-4.1V"),
        ({"model_type": "glm4v_text"}, "GLM-4.1V"),
        ({"model_type": "glm46v"}, "GLM-4.6V-Flash"),
        ({"model_type": "glm4v_moe"}, "GLM-4.5V"),
        ({"model_type": "glm4_moe"}, "GLM-4.5, GLM-4.6 or GLM-4.7"),
        ({"model_type": "glm4_moe_lite"}, "GLM-4.7-Flash"),
        ({"model_type": "glm_moe_dsa"}, "GLM-5"),
        ({"model_type": "glm5_next"}, "GLM-5.3-Flash"),
        ({"model_type": "glm_ocr"}, "GLM-OCR"),
        ({"model_type": "glm_image"}, "GLM-Image"),
        ({"model_type": "glmasr"}, "GLM-ASR"),
        ({"model_type": "glm-130b"}, "GLM-130B"),
    ],
)
def test_a_model_is_refused_by_its_name(values: dict[str, Any], name: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        find_architecture(values)
    words = (f"model_type={values['model_type']!r}", f"is that of {name}", "not supported: give a")
    assert_sentence(str(caught.value), *words)


def list_model_types() -> Iterator[str]:
    """The model types of the family in the installed transformers."""
    for module in pkgutil.iter_modules(transformers.models.__path__):
        if module.name.startswith("glm"):
            name = f"transformers.models.{module.name}.configuration_{module.name}"
            for value in vars(importlib.import_module(name)).values():
                if isinstance(value, type) and value.__module__ == name:
                    yield getattr(value, "model_type", "")


def test_every_model_type_of_transformers_is_known() -> None:
    """A newer transformers with one more model type fails here, so that it gets a name."""
    found = {kind for kind in list_model_types() if kind}
    assert {"glm", "glm4", "glm4v", "glm4_moe"} <= found
    for kind in found - set(ARCHITECTURES):
        if kind.endswith(("_vqmodel", "_encoder")):
            continue
        with pytest.raises(UnsupportedModelError, match="is that of"):
            find_architecture({"model_type": kind})


@pytest.mark.parametrize("values", [CHATGLM3, {"model_type": "glm"}, {"model_type": "glm4"}])
def test_supported_models_are_not_taken_for_others(values: dict[str, Any]) -> None:
    assert find_architecture(values).model_type == values["model_type"]


@pytest.mark.usefixtures("no_tracing")
def test_a_whole_export_of_another_model(tmp_path: Path) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    edit_config(checkpoint, model_type="glm4_moe")
    options = ExportOptions(checkpoint, tmp_path / "out")
    assert_export_refused(options, UnsupportedModelError, "GLM-4.5", "mixtures of experts")


@pytest.mark.usefixtures("no_tracing")
def test_a_quantized_checkpoint_of_another_model(tmp_path: Path) -> None:
    """ChatGLM-6B-int4: its name is said, and not the type of its tensors."""
    checkpoint = write_small(tmp_path / "checkpoint")
    write_json(checkpoint / "config.json", {**CHATGLM_6B, "quantization_bit": 4})
    write_safetensors(checkpoint / WEIGHTS, {"x": RawTensor("I8", (4,), bytes(4))})
    options = ExportOptions(checkpoint, tmp_path / "out")
    assert_export_refused(options, UnsupportedModelError, "ChatGLM-6B", "a later model")


# --- other folders


def empty(folder: Path, *names: str) -> Path:
    """A folder with empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def without(folder: Path, *names: str) -> Path:
    write_small(folder)
    for name in names:
        (folder / name).unlink()
    return folder


def write_cache(folder: Path) -> Path:
    """The folder of a repository in the cache of Hugging Face."""
    write_small(folder / "snapshots" / "abc")
    return folder


def write_exported(folder: Path) -> Path:
    without(folder, WEIGHTS)
    return empty(folder, "glm_manifest.json", "model.onnx")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_exported, ("is an exported folder already", "glm-run chat")),
        (write_cache, ("holds no model itself", "snapshots/abc")),
        (lambda f: (write_small(f / "checkpoint-500"), f)[1], ("give", "checkpoint-500")),
        (lambda f: empty(f, "49300/mp_rank_00_model_states.pt", "latest"), ("GLM-130B",)),
        (lambda f: empty(without(f, WEIGHTS), "zero_to_fp32.py"), ("DeepSpeed", "in parts")),
        (lambda f: empty(f, "glm-4-9b-Q4_K_M.gguf"), ("llama.cpp", "glm-4-9b-Q4_K_M.gguf")),
        (lambda f: empty(without(f, WEIGHTS), "model.onnx"), ("an ONNX model", "model.onnx")),
    ],
)
def test_a_folder_of_another_kind(
    tmp_path: Path, write: Callable[[Path], Path], words: tuple[str, ...]
) -> None:
    folder = write(tmp_path / "given")
    for call in (check_folder, open_checkpoint):
        with pytest.raises(CheckpointError) as caught:
            call(folder)
        assert_sentence(str(caught.value), str(folder), *words)


def test_an_evaluation_with_the_folder_in_place_of_the_checkpoint(tmp_path: Path) -> None:
    folder = write_exported(tmp_path / "out")
    with pytest.raises(CheckpointError, match="is an exported folder already"):
        check_evaluation_inputs(folder, [folder], None)


def test_a_manifest_beside_weights_does_no_harm(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    write_json(folder / "glm_manifest.json", {})
    assert open_checkpoint(folder).weight_files == (folder / WEIGHTS,)


def test_a_folder_with_nothing_known(tmp_path: Path) -> None:
    shutil.copy(__file__, tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no config.json in"):
        open_checkpoint(tmp_path)
