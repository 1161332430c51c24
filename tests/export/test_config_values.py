"""config.json values that are not supported are refused by name; the others are read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_export.errors import UnsupportedModelError
from glm_export.model.architectures import ARCHITECTURES, DecoderConfig
from support.broken_checkpoints import CONFIG
from support.property_tests import examples
from support.refusals import assert_sentence


def read(**values: Any) -> DecoderConfig:
    config = dict(CONFIG) | values
    present = {key: value for key, value in config.items() if value is not ...}
    return ARCHITECTURES["glm4"].read_config(present)


COUNTS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
)
NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
INFINITY = float("inf")
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}
YARN_OF_1 = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1}


@pytest.mark.parametrize("key", COUNTS)
@pytest.mark.parametrize("value", [0, -1, 1.5, 64.0, "64", True, [64], {}])
def test_a_count_that_is_none(key: str, value: object) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read(**{key: value})
    found = f"config.json says {key}={value!r}"
    assert_sentence(str(caught.value), found, "a whole number of at least 1")


@pytest.mark.parametrize("key", [*NEEDED, "vocab_size"])
def test_a_missing_count(key: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read(**{key: ...})
    assert_sentence(str(caught.value), f"config.json says {key}=None", "a whole number")


@pytest.mark.parametrize("key", ["rope_theta", "partial_rotary_factor", "rms_norm_eps"])
@pytest.mark.parametrize(
    "value", [0, -1.0, "1", True, [], INFINITY, -INFINITY, float("nan"), 1e300, 10**400]
)
def test_a_number_that_is_none(key: str, value: object) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read(**{key: value})
    assert_sentence(str(caught.value), f"config.json says {key}=", "a number above 0")


@pytest.mark.parametrize("key", ["attention_bias", "tie_word_embeddings"])
@pytest.mark.parametrize("value", ["true", 1, None, []])
def test_a_flag_that_is_none(key: str, value: object) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read(**{key: value})
    assert_sentence(str(caught.value), f"config.json says {key}={value!r}", "true or false")


@pytest.mark.parametrize(
    ("values", "found", "expected"),
    [
        ({"hidden_act": "gelu"}, "hidden_act='gelu'", "'silu'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000", "at most 1000"),
        ({"rope_scaling": DYNAMIC}, "rope_type='dynamic'", "'default' or 'yarn'"),
        ({"rope_scaling": {"type": "linear"}}, "type='linear'", "'default' or 'yarn'"),
        ({"rope_scaling": {"factor": 2.0}}, "factor=2.0", "is not supported; use another"),
        ({"rope_scaling": []}, "rope_scaling=[]", "an object"),
        ({"rope_parameters": DYNAMIC}, "rope_type='dynamic'", "'default' or 'yarn'"),
        (
            {"rope_parameters": {"mrope_section": [8, 12]}},
            "mrope_section=[8, 12]",
            "is not supported; use another",
        ),
        (
            {"rope_parameters": {"full_attention": {}}},
            "full_attention={}",
            "is not supported; use another",
        ),
        ({"rope_parameters": "default"}, "rope_parameters='default'", "an object"),
        ({"rope_parameters": False}, "rope_parameters=False", "an object"),
        ({"rope_parameters": {"rope_theta": "1"}}, "rope_theta='1'", "a number above 0"),
        ({"rope_parameters": YARN_OF_1}, "rope_theta is 1;", "a number above 1"),
        # Before, the export ended with "glm_manifest.json: theta is 0.5; export the folder again".
        ({"rope_theta": 0.5, "rope_parameters": None}, "rope_theta is 0.5;", "a number above 1"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "num_attention_heads=3", "multiple"),
        ({"num_attention_heads": 1, "num_key_value_heads": 2}, "num_attention_heads=1", "multiple"),
        ({"head_dim": 24}, "head_dim=24", "a multiple of 16"),
        ({"head_dim": 33}, "head_dim=33", "a multiple of 16"),
        ({"partial_rotary_factor": 0.25}, "turns 8 numbers of a head of 32", "a multiple of 16"),
        ({"partial_rotary_factor": 0.01}, "turns 0 numbers of a head of 32", "a multiple of 16"),
        ({"partial_rotary_factor": 2.0}, "turns 64 numbers of a head of 32", "up to head_dim"),
    ],
)
def test_a_value_that_is_not_supported(
    values: dict[str, object], found: str, expected: str
) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read(**values)
    assert_sentence(str(caught.value), found, expected)


@pytest.mark.parametrize(
    "values",
    [
        {"rope_theta": 5e5, "partial_rotary_factor": 1.0},
        {"rope_parameters": {"rope_theta": 5e5, "partial_rotary_factor": 1.0}},
        {"rope_scaling": {"rope_theta": 5e5, "partial_rotary_factor": 1.0, "type": "default"}},
        {
            "rope_scaling": {"rope_theta": 5e5, "partial_rotary_factor": 1.0},
            "rope_parameters": {"rope_type": "default", "rope_theta": 1.0},
        },
    ],
)
def test_rotary_settings_at_any_of_their_places(values: dict[str, object]) -> None:
    """`test_rope_writings.py` compares many more of them with transformers."""
    config = read(**values)
    assert (config.rope_theta, config.rotary_dim) == (5e5, 32)


def test_absent_values_are_those_of_transformers() -> None:
    """Source: `GlmConfig` of transformers 4.51 and 5."""
    absent = ("num_key_value_heads", "head_dim", "rms_norm_eps", "attention_bias", "hidden_act")
    more = ("max_position_embeddings", "rope_theta", "partial_rotary_factor", "tie_word_embeddings")
    config = read(**dict.fromkeys((*absent, *more), ...))
    assert (config.num_kv_heads, config.head_dim, config.rotary_dim) == (2, 128, 64)
    assert (config.rms_norm_epsilon, config.rope_theta) == (1.5625e-7, 10_000.0)
    assert (config.context_length, config.is_tied) == (131_072, False)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)
KEYS = (*CONFIG, "rope_scaling", "rope_parameters", "quantization_config")


@examples(300)
@given(values=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3))
def test_random_values_are_never_a_traceback(values: dict[str, object]) -> None:
    config = json.loads(json.dumps(dict(CONFIG) | values))
    for architecture in ARCHITECTURES.values():
        try:
            read_config = architecture.read_config(config)
        except UnsupportedModelError:
            continue
        assert read_config.rotary_dim <= read_config.head_dim
