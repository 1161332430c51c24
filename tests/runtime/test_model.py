import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from glm_runtime import (
    FolderError,
    FormatVersionError,
    GenerationSettings,
    Model,
    PromptError,
    SamplingSettings,
    load,
)
from glm_runtime.folder.manifest import read_manifest
from runtime.tiny_folder import seal_folder

GREEDY = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=8)
MESSAGES = [{"role": "user", "content": "床前明月光"}]


def test_chat_is_the_rendered_template_answered(tiny_model: Model):
    rendered = "[gMASK]<sop><|user|>\n床前明月光<|assistant|>\n"
    assert list(tiny_model.chat(MESSAGES, GREEDY)) == list(tiny_model.generate(rendered, GREEDY))
    ids = tiny_model.prepare_chat(MESSAGES).token_ids
    assert ids[0] == 331  # [gMASK] as one token, not as letters


def test_the_folders_own_settings_are_the_default(tiny_copy: Path):
    config = {"do_sample": True, "temperature": 0.5, "top_p": 0.8}
    (tiny_copy / "generation_config.json").write_text(json.dumps(config))
    seal_folder(tiny_copy, read_manifest(tiny_copy).model)
    settings = load(tiny_copy, device="cpu").default_settings
    assert settings.sampling == SamplingSettings(0.5, top_k=50, top_p=0.8)


def test_without_a_template_chat_says_what_to_do(tiny_copy: Path):
    (tiny_copy / "chat_template.jinja").unlink()
    seal_folder(tiny_copy, read_manifest(tiny_copy).model)
    with pytest.raises(PromptError, match="has no chat template, so messages cannot be"):
        load(tiny_copy, device="cpu").chat(MESSAGES)


def test_a_damaged_folder_is_refused_and_every_bad_file_named(tiny_copy: Path):
    (tiny_copy / "model.onnx.data").write_bytes(b"short")
    (tiny_copy / "tokenizer.json").unlink()
    sentence = r"is damaged: model\.onnx\.data has 5 bytes.*; tokenizer\.json is missing; copy"
    with pytest.raises(FolderError, match=sentence):
        load(tiny_copy)


def test_a_surplus_file_does_not_keep_a_folder_from_loading(tiny_copy: Path):
    (tiny_copy / ".DS_Store").touch()
    load(tiny_copy, device="cpu")


def test_a_folder_from_a_newer_format_is_refused(patch_json: Callable[..., Path]):
    folder = patch_json("glm_manifest.json", format_version=2)
    with pytest.raises(FormatVersionError, match="upgrade it with `pip install --upgrade"):
        load(folder)


def test_a_folder_loads_from_any_path(tiny_folder: Path, tmp_path: Path):
    """Spaces and Chinese in the path; the graph finds its weights beside it."""
    folder = shutil.copytree(tiny_folder, tmp_path / "我的 model")
    assert list(load(str(folder), device="cpu").generate("a", GREEDY))
