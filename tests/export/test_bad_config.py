"""A bad config.json, or options that do not fit it, through a whole export.

`test_config_values.py` goes through more of the values.
"""

import json
from pathlib import Path

import pytest

from glm_export.errors import (
    UnsupportedModelError,
)
from support.broken_checkpoints import (
    CONFIG,
    SHAPES,
    edit_config,
    random_tensors,
)
from support.refusals import (
    refuse,
)

EMBEDDING = "model.embed_tokens.weight"


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize("model_type", ["llama", "GLM4", "", None, 4, ["glm4"], {}])
def test_model_type(tmp_path: Path, model_type: object) -> None:
    words = (f"config.json says model_type={model_type!r}", "supported are chatglm, glm, glm4")
    refuse(
        tmp_path,
        lambda c: edit_config(c, model_type=model_type),
        UnsupportedModelError,
        *words,
        "use a checkpoint of that type",
    )


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "rope_type='dynamic'"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_type='yarn' without factor"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "not a multiple of"),
        ({"partial_rotary_factor": 0.3}, "turns 9 numbers of a head of 32"),
        ({"hidden_size": "64"}, "hidden_size='64'"),
        ({"vocab_size": -1}, "vocab_size=-1"),
        ({"head_dim": 10**400}, "at least 1 and below 2^31"),
        ({"max_position_embeddings": 2**31}, "max_position_embeddings=2147483648"),
    ],
)
def test_config_values(tmp_path: Path, values: dict[str, object], word: str) -> None:
    refuse(tmp_path, lambda c: edit_config(c, **values), UnsupportedModelError, word)


def test_the_config_is_the_one_these_tests_mean() -> None:
    """The hand-written shapes and config agree with each other and with the tokenizer."""
    assert json.loads(json.dumps(CONFIG))["vocab_size"] == SHAPES[EMBEDDING][0]
    assert set(random_tensors()) == set(SHAPES)
