import json
import re
from pathlib import Path

import pytest

from glm_runtime.errors import FolderError, SamplingError
from glm_runtime.sampling.settings import (
    SamplingSettings,
    read_sampling_defaults,
)

NAN = float("nan")
INFINITY = float("inf")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", value) for value in (-0.1, NAN, INFINITY, 1e308)),
        ("top_k", -1),
        *(("top_p", value) for value in (0, -1, 1.01, NAN)),
        *(("min_p", value) for value in (-0.01, 1.5, NAN)),
        *(("repetition_penalty", value) for value in (0, -1, NAN, INFINITY, 5e-324, 1e-46, 2e6)),
        *(("presence_penalty", value) for value in (NAN, 1e308, -1e7)),
        *(("frequency_penalty", value) for value in (INFINITY, 1e308, -1e7)),
        ("seed", -1),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(name: str, value: float):
    shown = re.escape(repr(value))
    with pytest.raises(SamplingError, match=rf"{name} is {shown} where .* is expected; choose"):
        SamplingSettings(**{name: value})


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0, "top_p": 1, "min_p": 0, "top_k": 0},
        {"min_p": 1, "seed": 0, "repetition_penalty": 0.1},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(values: dict):
    SamplingSettings(**values)


def write(folder: Path, content: object) -> Path:
    (folder / "generation_config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("config", [{}, {"do_sample": False, "temperature": 0.6, "top_k": 3}])
def test_a_folder_that_does_not_ask_for_sampling_is_greedy(tmp_path: Path, config: dict):
    assert read_sampling_defaults(write(tmp_path, config)) == SamplingSettings(temperature=0)


def test_greedy_keeps_the_repetition_penalty(tmp_path: Path):
    defaults = read_sampling_defaults(write(tmp_path, {"repetition_penalty": 1.2}))
    assert defaults == SamplingSettings(temperature=0, repetition_penalty=1.2)


def test_recommended_values_are_read(tmp_path: Path):
    config = {"do_sample": True, "temperature": 0.6, "top_k": 40, "top_p": 0.95, "min_p": 0.1}
    defaults = read_sampling_defaults(write(tmp_path, config | {"eos_token_id": [1]}))
    assert defaults == SamplingSettings(temperature=0.6, top_k=40, top_p=0.95, min_p=0.1)


def test_missing_values_get_the_defaults_of_transformers(tmp_path: Path):
    from transformers import GenerationConfig  # noqa: PLC0415  # slow, one test needs it

    defaults = read_sampling_defaults(write(tmp_path, {"do_sample": True}))
    reference = GenerationConfig._get_default_generation_params()
    assert defaults.top_k == reference["top_k"]
    assert defaults.temperature == reference["temperature"]
    assert defaults.top_p == reference["top_p"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "does not hold an object"),
        ('{"do_sample": true, "top_p": "high"}', "top_p is 'high' where a number is expected"),
        ('{"do_sample": true, "top_k": true}', "top_k is True where a number is expected"),
        ('{"do_sample": true, "top_p": 7}', "generation_config.json: top_p is 7"),
        ('{"repetition_penalty": 0}', "generation_config.json: repetition_penalty is 0"),
    ],
)
def test_a_config_that_cannot_be_used_is_named(tmp_path: Path, text: str, sentence: str):
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(FolderError, match=sentence):
        read_sampling_defaults(tmp_path)


def test_a_missing_config_is_named(tmp_path: Path):
    with pytest.raises(FolderError, match=r"generation_config\.json is missing"):
        read_sampling_defaults(tmp_path)


def test_overrides_change_only_what_was_given():
    defaults = SamplingSettings(temperature=0.6, top_k=50, top_p=0.8)
    merged = defaults.override({"top_p": 0.5, "seed": 3})
    assert merged == SamplingSettings(temperature=0.6, top_k=50, top_p=0.5, seed=3)


def test_a_sampling_option_turns_a_greedy_default_into_sampling():
    greedy = SamplingSettings(temperature=0)
    assert greedy.override({"top_k": 5}) == SamplingSettings(1.0, top_k=5)
    assert greedy.override({"repetition_penalty": 2.0, "seed": 1}).is_greedy
    assert greedy.override({"temperature": 0.0, "top_k": 5}).is_greedy
