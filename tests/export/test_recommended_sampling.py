"""A checkpoint that is recognisably GLM-Z1 gets the card's sampling where it says nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from glm_export import ExportOptions, export
from glm_export.folder.recommended_sampling import recommend_sampling
from glm_runtime import load
from support.chat_templates import LIKE_0414
from support.tiny_models import TinyShape, build_model, write_checkpoint

LIKE_Z1 = LIKE_0414.replace(
    "{%- if add_generation_prompt %}<|assistant|>{% endif -%}",
    "{%- if add_generation_prompt %}<|assistant|>\n<think>\n{% endif -%}",
)
CARD = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 40}
COMPLETE = {**CARD, "max_new_tokens": 30_000}


@pytest.mark.parametrize(
    ("generation", "model_type", "template", "expected"),
    [
        ({"eos_token_id": [5]}, "glm4", LIKE_Z1, COMPLETE),
        ({}, "glm4", LIKE_Z1, COMPLETE),
        ({"temperature": None}, "glm4", LIKE_Z1, COMPLETE),
        ({"max_new_tokens": 9}, "glm4", LIKE_Z1, CARD),
        ({"max_length": 99}, "glm4", LIKE_Z1, CARD),
        ({"temperature": 0.9}, "glm4", LIKE_Z1, {}),
        ({"do_sample": False}, "glm4", LIKE_Z1, {}),
        ({}, "glm", LIKE_Z1, {}),
        ({}, "glm4", LIKE_0414, {}),
        ({}, "glm4", None, {}),
        ({}, "glm4", "{{ raise_exception('no') }}", {}),
    ],
)
def test_only_what_is_missing_is_recommended(
    generation: dict[str, Any], model_type: str, template: str | None, expected: dict[str, Any]
) -> None:
    assert recommend_sampling(generation, model_type, template) == expected


def test_the_folder_samples_as_the_card_says(tmp_path: Path) -> None:
    """Such a folder decoded greedily in every host, and a reasoning model then repeats itself."""
    checkpoint = tmp_path / "checkpoint"
    write_checkpoint(checkpoint, build_model(TinyShape()))
    (checkpoint / "chat_template.jinja").write_text(LIKE_Z1)
    report = export(ExportOptions(checkpoint, tmp_path / "out", quant="none", verify="none"))
    assert any("GLM-Z1's card" in note for note in report.notes)
    settings = load(report.folder, device="cpu").default_settings
    assert settings.max_new_tokens == 30_000
    sampling = settings.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.6, 0.95, 40)
    search = json.loads((report.folder / "genai_config.json").read_text())["search"]
    assert {key: search[key] for key in CARD} == CARD
