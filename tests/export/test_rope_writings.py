"""Every way to write rotary settings in config.json, beside what transformers 5 computes of it.

`rope_scaling` beside `rope_parameters`, and the training context at the root, were read differently
and silently: the logits were up to 3.3 away.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import Glm4Config, GlmConfig
from transformers.models.glm.modeling_glm import GlmRotaryEmbedding
from transformers.models.glm4.modeling_glm4 import Glm4RotaryEmbedding

from glm_export.checkpoint.rope_options import RopeOptions
from glm_export.checkpoint.source_model import open_source
from glm_export.errors import UnsupportedModelError
from glm_export.model.architectures import ARCHITECTURES
from glm_export.model.rotary import find_frequencies
from support.broken_checkpoints import CONFIG, edit_config, write_small
from support.refusals import assert_sentence

ROOT = {"rope_theta": 5e6, "partial_rotary_factor": 1.0}
ORIGINAL = {"original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0}
FULL = {**YARN, **ORIGINAL}
Config = dict[str, Any]

COMPUTED: dict[str, Config] = {
    "nothing": {},
    "root": ROOT,
    "root, whole numbers": {"rope_theta": 500_000, "partial_rotary_factor": 1},
    "rope_parameters": {"rope_parameters": {"rope_type": "default", **ROOT}},
    "rope_parameters without a type": {"rope_parameters": ROOT},
    "rope_parameters before the root": {"rope_theta": 1e5, "rope_parameters": {"rope_theta": 5e6}},
    "part at the root, theta nested": {
        "partial_rotary_factor": 1.0,
        "rope_parameters": {"rope_theta": 5e6},
    },
    "rope_scaling of type default": {"rope_scaling": {"type": "default", **ROOT}},
    "empty objects": {"rope_scaling": {}, "rope_parameters": {}, **ROOT},
    "null objects": {"rope_scaling": None, "rope_parameters": None, **ROOT},
    "empty rope_scaling": {"rope_scaling": {}, "rope_parameters": FULL},
    "rope_scaling wins": {"rope_scaling": FULL, "rope_parameters": {"rope_theta": 5e6}},
    "rope_scaling wins with theta alone": {
        "rope_scaling": {"rope_theta": 5e6},
        "rope_parameters": {**FULL, "partial_rotary_factor": 1.0},
    },
    "both of yarn": {
        "rope_scaling": {**FULL, "factor": 8.0},
        "rope_parameters": {**FULL, "attention_factor": 1.5},
    },
    "type": {"rope_scaling": {"type": "yarn", "factor": 4.0, **ORIGINAL}},
    "rope_type": {"rope_scaling": FULL},
    "both types": {"rope_scaling": {**FULL, "type": "linear"}},
    "in rope_parameters": {"rope_parameters": {**FULL, **ROOT}},
    "in rope_parameters by type": {"rope_parameters": {"type": "yarn", "factor": 4.0, **ORIGINAL}},
    "no original context": {"rope_scaling": YARN},
    "original context at the root": {"rope_scaling": YARN, **ORIGINAL},
    "root before nested": {
        "rope_scaling": {**YARN, "original_max_position_embeddings": 65_536},
        **ORIGINAL,
    },
    "original context at the root, no yarn": ORIGINAL,
    "factor is null": {"rope_scaling": {**FULL, "factor": None}},
    "whole factor": {"rope_scaling": {**FULL, "factor": 4}},
    "factor of one": {"rope_scaling": {**FULL, "factor": 1.0}},
    "attention_factor": {"rope_scaling": {**FULL, "attention_factor": 1.3}},
    "attention_factor is null": {"rope_scaling": {**FULL, "attention_factor": None}},
    "mscale": {"rope_scaling": {**FULL, "mscale": 0.7, "mscale_all_dim": 1.2}},
    "mscale alone": {"rope_scaling": {**FULL, "mscale": 0.7}},
    "attention_factor before mscale": {
        "rope_scaling": {**FULL, "attention_factor": 1.1, "mscale": 0.7, "mscale_all_dim": 1.2}
    },
    "betas": {"rope_scaling": {**FULL, "beta_fast": 16, "beta_slow": 2.0}},
    "null betas": {"rope_scaling": {**FULL, "beta_fast": None, "beta_slow": None}},
    "not truncated": {"rope_scaling": {**FULL, "truncate": False}},
    "yarn keys at the root only": {"factor": 4.0, "rope_type": "yarn", **ROOT},
    "theta of yarn at the root": {"rope_theta": 5e6, "rope_scaling": FULL},
    "part of yarn nested": {"rope_scaling": {**FULL, "partial_rotary_factor": 1.0}},
}
REFUSED: dict[str, tuple[Config, str]] = {
    "linear": ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "type='linear'"),
    "dynamic": ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type='dynamic'"),
    "longrope": ({"rope_parameters": {"rope_type": "longrope"}}, "rope_type='longrope'"),
    "null type": ({"rope_scaling": {**FULL, "rope_type": None, "type": "yarn"}}, "rope_type=None"),
    "no factor": ({"rope_scaling": {"rope_type": "yarn"}}, "without factor"),
    "factor without a type": ({"rope_scaling": {"factor": 4.0}}, "factor=4.0"),
    "yarn keys of type default": ({"rope_scaling": {**FULL, "rope_type": "default"}}, "factor=4.0"),
    "by layer type": ({"rope_parameters": {"full_attention": FULL}}, "full_attention="),
    "multimodal": ({"rope_parameters": {"mrope_section": [8, 12, 12]}}, "mrope_section="),
    "null theta": ({"rope_theta": None}, "rope_theta=None"),
    "null theta nested": ({"rope_parameters": {"rope_theta": None}}, "rope_theta=None"),
    "null part": ({"partial_rotary_factor": None}, "partial_rotary_factor=None"),
    "null original at the root": (
        {"rope_scaling": FULL, "original_max_position_embeddings": None},
        "original_max_position_embeddings=None",
    ),
    "null truncate": ({"rope_scaling": {**FULL, "truncate": None}}, "truncate=None"),
    "a text": ({"rope_scaling": "yarn"}, "rope_scaling='yarn'"),
}
MODELS = {"glm": (GlmConfig, GlmRotaryEmbedding), "glm4": (Glm4Config, Glm4RotaryEmbedding)}


def write_config(model_type: str, values: Config) -> Config:
    config = {key: value for key, value in CONFIG.items() if key not in ROOT}
    sizes = {"head_dim": 128, "max_position_embeddings": 32_768}
    return json.loads(json.dumps({**config, **sizes, "model_type": model_type, **values}))


@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize("writing", COMPUTED)
def test_a_writing_is_computed_as_in_transformers(writing: str, model_type: str) -> None:
    config_class, rotary_class = MODELS[model_type]
    values = write_config(model_type, COMPUTED[writing])
    ours = ARCHITECTURES[model_type].read_config(values)
    theirs = rotary_class(config_class.from_dict(write_config(model_type, COMPUTED[writing])))
    scaling = 1.0 if ours.yarn is None else ours.yarn.attention_factor
    assert scaling == pytest.approx(theirs.attention_scaling, rel=1e-12)
    np.testing.assert_allclose(find_frequencies(ours), theirs.inv_freq.numpy(), rtol=1e-6)


@pytest.mark.parametrize("writing", REFUSED)
def test_a_writing_is_refused_by_name(writing: str) -> None:
    values, word = REFUSED[writing]
    with pytest.raises(UnsupportedModelError) as caught:
        ARCHITECTURES["glm4"].read_config(write_config("glm4", values))
    assert_sentence(str(caught.value), "config.json says", word)


def test_two_objects_that_differ_are_said(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    edit_config(folder, rope_scaling=FULL, rope_parameters={"rope_theta": 5e6})
    (note,) = open_source(folder).notes
    assert "rope_scaling and rope_parameters, which differ; rope_scaling was used" in note
    edit_config(folder, rope_parameters=FULL)
    assert open_source(folder).notes == ()


@pytest.mark.parametrize(
    ("options", "factor", "original"),
    [
        (RopeOptions("yarn", 2.0), 2.0, 8192),
        (RopeOptions("yarn", 2.0, original_context=4096), 2.0, 4096),
        (RopeOptions(theta=5e4), 4.0, 8192),
    ],
)
def test_options_over_an_original_context_at_the_root(
    tmp_path: Path, options: RopeOptions, factor: float, original: int
) -> None:
    """The changed config.json says to transformers what was exported."""
    folder = write_small(tmp_path / "checkpoint")
    edit_config(folder, rope_scaling=YARN, max_position_embeddings=32_768, **ORIGINAL)
    source = open_source(folder, options.list_changes(folder))
    assert source.config.yarn is not None
    assert (source.config.yarn.factor, source.config.yarn.original_context) == (factor, original)
    theirs = Glm4RotaryEmbedding(Glm4Config.from_dict(dict(source.checkpoint.config)))
    np.testing.assert_allclose(find_frequencies(source.config), theirs.inv_freq.numpy(), rtol=1e-6)
