"""Changes that the settings do not name are left out, as PEFT leaves them out.

PEFT itself decides in these tests: its `check_target_module_exists`, and a loaded adapter.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import check_target_module_exists

from glm_export import Adapter
from glm_export.checkpoint import name_patterns
from glm_export.checkpoint.source_model import SourceModel, open_source
from glm_export.errors import CheckpointError, ExportError, UnsupportedModelError
from glm_export.model.layer_stream import LayerStream
from support.broken_checkpoints import edit_config, edit_json, replace_tensors, write_small
from support.lora_adapters import CONFIG, LAYER, MODULES, draw, draw_change, write_adapter
from support.refusals import assert_sentence
from support.tiny_models import TinyShape, build_model, write_checkpoint

Q_PROJ = f"{LAYER}self_attn.q_proj"
IDS = np.random.default_rng(0).integers(0, 320, (1, 40), dtype=np.int64)
# An expression with 2^n ways to fail on n letters.
ENDLESS = r"(?:\w+)+(?:[\w.]+)+(?:[\w.]+)+!"


def open_merged(tmp_path: Path, *adapters: Adapter) -> SourceModel:
    folder = tmp_path / "base"
    return open_source(folder if folder.exists() else write_small(folder), adapters=adapters)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "down_proj"]},
        {"target_modules": ["proj", Q_PROJ, "mlp.down_proj"]},
        {"target_modules": r".*\.(q|v)_proj"},
        {"target_modules": r"model\.layers"},
        {"exclude_modules": ["q_proj"]},
        {"exclude_modules": r".*(self_attn|down).*"},
        {"exclude_modules": r"model"},
        {"modules_to_save": ["mlp"]},
        {"layers_to_transform": [1, 2]},
        {"layers_to_transform": 0},
        {"layers_to_transform": [0], "layers_pattern": "layers"},
        {"layers_to_transform": [0], "layers_pattern": ["h", "blocks"]},
        {"layers_to_transform": [5], "target_modules": ["v_proj", Q_PROJ]},
    ],
    ids=str,
)
def test_the_changes_are_those_of_peft(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Excluded modules were merged if the file held their tensors."""
    chosen: dict[str, Any] = {"target_modules": [one.rpartition(".")[2] for one in MODULES]}
    chosen |= settings
    expected = {one for one in MODULES if check_target_module_exists(LoraConfig(**chosen), one)}
    expected = {one for one in expected if not _is_excluded(chosen, one)}
    folder = write_adapter(tmp_path / "lora", **chosen)
    if not expected:
        with pytest.raises(CheckpointError) as caught:
            open_merged(tmp_path, Adapter(folder))
        assert_sentence(str(caught.value), "names no module that it changes", "belong together")
        return
    source = open_merged(tmp_path, Adapter(folder))
    assert {change.module for change in source.adapters[0].changes} == expected
    count = len(MODULES) - len(expected)
    sentence = f"({len(expected)} changes)."
    sentence += f" {count} of its changes were left out, as in PEFT" if count else ""
    assert any(sentence in note for note in source.notes)


def _is_excluded(settings: dict[str, Any], module: str) -> bool:
    found = check_target_module_exists(LoraConfig(**settings), module)
    return type(found).__name__ == "_ExcludedModule"


TIED = TinyShape(tie_word_embeddings=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ],
    ids=str,
)
def test_a_tied_embedding_and_its_head(tmp_path: Path, settings: dict[str, Any]) -> None:
    """They were refused, because only one of them would change; PEFT changes both.

    `merge_and_unload` of PEFT 0.21 adds the change twice to the shared weight, so that the
    reference is the model before the merge.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=2, lora_alpha=4, ensure_weight_tying=True, **settings)
        model = get_peft_model(build_model(TIED), config)
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn_like(parameter) * 0.2
                # In place, because the head's numbers are views of the embedding's.
                parameter.data.copy_(noise if "lora" in name else parameter.data + noise)
        model.save_pretrained(tmp_path / "lora")
        loaded = PeftModel.from_pretrained(build_model(TIED), str(tmp_path / "lora")).eval()
    write_checkpoint(tmp_path / "base", build_model(TIED))
    source = open_source(tmp_path / "base", adapters=[Adapter(tmp_path / "lora")])
    stream = LayerStream(source.config, source.read_parameter)
    with torch.inference_mode():
        expected = loaded(torch.from_numpy(IDS)).logits.numpy()
        found = (stream.hidden_states(IDS) @ stream.read_head().T).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("part", ["lora_A", "lora_B", "weight"])
def test_a_tied_head_that_differs(tmp_path: Path, part: str) -> None:
    base = write_small(tmp_path / "base")
    edit_config(base, tie_word_embeddings=True)
    replace_tensors(base, drop=["lm_head.weight"])
    down, up = draw("A", (2, 320)), draw("B", (64, 2))
    own = {"model.embed_tokens.lora_embedding_A": down, "model.embed_tokens.lora_embedding_B": up}
    own |= {"lm_head.lora_A.weight": up.T.copy(), "lm_head.lora_B.weight": down.T.copy()}
    if part == "weight":
        own = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), draw("w", (320, 64)))
        own |= draw_change({Q_PROJ: MODULES[Q_PROJ]})
    folder = write_adapter(tmp_path / "lora", own, ensure_weight_tying=True)
    open_merged(tmp_path, Adapter(folder))
    name = next(key for key in own if part in key and "lm_head" in key)
    other = write_adapter(tmp_path / "other", own | {name: own[name] + 1}, ensure_weight_tying=True)
    with pytest.raises(CheckpointError) as caught:
        open_merged(tmp_path, Adapter(other))
    assert_sentence(
        str(caught.value), "ensure_weight_tying=True, but changes lm_head", "save it again"
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target_modules": ENDLESS}, (f"{ENDLESS!r} in target_modules", "within 2 s")),
        ({"exclude_modules": ENDLESS}, (f"{ENDLESS!r} in exclude_modules", "within 2 s")),
        ({"modules_to_save": [ENDLESS]}, (f"{ENDLESS!r} in modules_to_save", "within 2 s")),
        ({"rank_pattern": {ENDLESS: 2}}, (f"{ENDLESS!r} in rank_pattern", "within 2 s")),
        ({"target_modules": "("}, ("'(' in target_modules, not a regular expression (",)),
        ({"target_modules": 5}, ("target_modules=5", "a list of names is needed")),
        ({"exclude_modules": [5]}, ("exclude_modules=[5]", "a list of names is needed")),
        ({"layers_to_transform": "0"}, ("layers_to_transform='0'", "a number of a layer")),
        ({"layers_pattern": 5, "layers_to_transform": 0}, ("layers_pattern=5", "a list of names")),
        ({"ensure_weight_tying": 1}, ("ensure_weight_tying=1", "true or false")),
    ],
    ids=str,
)
def test_settings_that_name_no_modules(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    """An expression that never ends stopped the export for ever."""
    monkeypatch.setattr(name_patterns, "_LIMIT_S", 2)
    folder = write_adapter(tmp_path / "lora")
    edit_json(folder / CONFIG, **settings)
    with pytest.raises(ExportError) as caught:
        open_merged(tmp_path, Adapter(folder))
    assert caught.type is UnsupportedModelError
    assert_sentence(str(caught.value), "adapter_config.json", *words)
