"""What the caller leaves out is as the folder recommends, in every way of giving settings."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

from glm_runtime import (
    BeamSettings,
    Conversation,
    DrySettings,
    FolderError,
    GenerationSettings,
    Model,
    Piece,
    PromptError,
    Request,
    SamplingError,
    SamplingSettings,
    load,
)
from glm_runtime.answering.keywords import KEYWORDS, SettingsKeywords, make_settings
from glm_runtime.answering.settings import read_defaults
from glm_runtime.folder.manifest import read_manifest
from runtime.tiny_folder import build_tiny_folder, seal_folder, write_json

RECOMMENDED = {"do_sample": True, "temperature": 1.7, "top_k": 40, "top_p": 0.9, "min_p": 0.01}
MESSAGES = [{"role": "user", "content": "月光"}]
LIMIT = 7
# All that the folder recommends, written out.
COMPLETE = GenerationSettings(
    SamplingSettings(1.7, 40, 0.9, 0.01, 1.2, seed=5), max_new_tokens=LIMIT
)


def make_folder(folder: Path, **config: object) -> Path:
    build_tiny_folder(folder)
    write_json(folder / "generation_config.json", config)
    seal_folder(folder, read_manifest(folder).model)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("recommended") / "model"
    config = {**RECOMMENDED, "repetition_penalty": 1.2, "max_new_tokens": LIMIT}
    return load(make_folder(folder, **config), device="cpu", threads=1)


SEEDED = GenerationSettings(SamplingSettings(seed=5))
WAYS: dict[str, Callable[[Model], Iterator[Piece]]] = {
    "settings": lambda model: model.generate("In the", SEEDED),
    "a keyword": lambda model: model.generate("In the", seed=5),
    "both": lambda model: model.generate("In the", GenerationSettings(), seed=5),
    "None": lambda model: model.generate("In the", seed=5, temperature=None, max_new_tokens=None),
    "None in a class": lambda model: model.generate(
        "In the",
        GenerationSettings(SamplingSettings(temperature=None, seed=5)),  # type: ignore[arg-type]
    ),
    "a session": lambda model: model.new_session().generate(
        model.tokenizer.encode("In the"), SEEDED
    ),
    "a session's keyword": lambda model: model.new_session().generate(
        model.tokenizer.encode("In the"), seed=5
    ),
    "a fork": lambda model: (
        model.new_session().fork().generate(model.tokenizer.encode("In the"), seed=5)
    ),
    "a batch": lambda model: (
        one.piece
        for one in model.generate_many([Request(model.tokenizer.encode("In the"), SEEDED)])
        if one.piece
    ),
    "a batch of texts": lambda model: (
        one.piece for one in model.generate_many(["In the"], seed=5) if one.piece
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_left_out_is_as_the_folder_recommends(model: Model, way: str):
    """`GenerationSettings(max_new_tokens=5)` sampled at temperature 1 in every folder.

    Chance of a false alarm: none, the seed is fixed. Wrong settings give another answer.
    """
    expected = list(model.generate("In the", COMPLETE))
    assert len(expected) == LIMIT
    assert list(WAYS[way](model)) == expected
    neutral = SamplingSettings(1.0, 0, 1.0, 0.0, 1.0, seed=5)
    assert list(model.generate("In the", GenerationSettings(neutral, LIMIT))) != expected


def test_chats_and_conversations_do_the_same(model: Model):
    expected = list(model.chat(MESSAGES, COMPLETE))
    assert list(model.chat(MESSAGES, seed=5)) == expected
    assert list(Conversation(model, SEEDED).ask("月光")) == expected
    assert list(Conversation(model, seed=5).ask("月光")) == expected
    assert list(Conversation(model).ask("月光", seed=5)) == expected
    assert model.ask("月光", seed=5) == "".join(piece.text for piece in expected)
    short = list(Conversation(model, seed=5).ask("月光", max_new_tokens=2))
    assert [piece.token_id for piece in short] == [piece.token_id for piece in expected[:2]]


def test_a_beam_search_has_the_folders_limit(model: Model):
    found = model.search("In the", BeamSettings(num_beams=2))
    assert max(len(beam.token_ids) for beam in found) == LIMIT


def test_a_larger_limit_of_the_caller_wins(model: Model):
    assert len(list(model.generate("In the", seed=5, max_new_tokens=12, is_eos_ignored=True))) == 12


def test_one_field_changes_nothing_else(model: Model):
    merged = make_settings(None, {"top_p": 0.5}).fill(model.default_settings)
    assert merged.sampling == SamplingSettings(1.7, 40, 0.5, 0.01, 1.2)
    assert merged.max_new_tokens == LIMIT
    assert merged.fill(GenerationSettings()) == merged  # filling twice changes nothing


def test_a_sampling_field_turns_a_greedy_folder_into_sampling():
    greedy = GenerationSettings(SamplingSettings(temperature=0))
    assert make_settings(None, {"top_k": 5}).fill(greedy).sampling.temperature == 1
    assert make_settings(None, {"seed": 5}).fill(greedy).sampling.is_greedy


@pytest.mark.parametrize(
    ("config", "length", "count"),
    [
        ({"max_length": 20}, 6, 14),
        ({"max_length": 20, "max_new_tokens": 3}, 6, 3),  # as in transformers
        ({"max_length": 10**9}, 250, 7),  # the context has 256, and the last is never read
    ],
)
def test_the_folders_length_counts_the_prompt(
    tiny_copy: Path, config: dict[str, object], length: int, count: int
):
    write_json(tiny_copy / "generation_config.json", config)
    seal_folder(tiny_copy, read_manifest(tiny_copy).model)
    model = load(tiny_copy, device="cpu", threads=1)
    assert len(list(model.generate([5] * length, is_eos_ignored=True))) == count
    assert len(list(model.generate([5] * length, is_eos_ignored=True, max_new_tokens=2))) == 2


def test_a_prompt_as_long_as_the_folders_length_is_refused(tiny_model: Model):
    sentence = r"has 9 tokens where max_length=9 is the limit .*; set max_new_tokens"
    with pytest.raises(PromptError, match=sentence):
        tiny_model.generate([5] * 9, max_length=9)
    assert len(list(tiny_model.generate([5] * 9, max_length=9, max_new_tokens=1))) == 1


@pytest.mark.parametrize("name", ["max_new_tokens", "max_length"])
@pytest.mark.parametrize("value", [0, -1, "7", True, 1.5, float("inf")])
def test_a_limit_that_is_no_number_is_refused(tmp_path: Path, name: str, value: object):
    write_json(tmp_path / "generation_config.json", {name: value})
    with pytest.raises(FolderError, match=rf"generation_config.json: {name} is .*export again"):
        read_defaults(tmp_path)


def test_every_field_is_a_keyword():
    fields = {
        field.name
        for record in (SamplingSettings, GenerationSettings)
        for field in dataclasses.fields(record)
    }
    assert set(KEYWORDS) == fields - {"sampling"} | {"json_schema"}
    assert set(get_type_hints(SettingsKeywords)) == set(KEYWORDS)


def test_keywords_take_the_usual_forms():
    made = make_settings(None, {"stop": "end", "logit_bias": {5: 1.5}, "dry": DrySettings()})
    assert (made.stop, made.sampling.logit_bias) == (("end",), ((5, 1.5),))
    assert make_settings(None, {"stop": ["a", "b"]}).stop == ("a", "b")
    settings = GenerationSettings(SamplingSettings(0.5, seed=1), 9)
    assert make_settings(settings, {"temperature": 0.2}).sampling == SamplingSettings(0.2, seed=1)
    assert make_settings(settings, {}) is settings


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"temprature": 1}, "'temprature' is not a setting; leave it out, or write temperature"),
        ({"max_tokens": 9}, "'max_tokens' is not a setting; leave it out, or write max_new_tokens"),
        ({"zzz": 9}, "'zzz' is not a setting; .* the settings are temperature, top_k,"),
        ({"temperature": "hot"}, "temperature is 'hot' where a number is expected"),
        ({"temperature": True}, "temperature is True where a number is expected"),
        ({"top_k": 1.5}, "top_k is 1.5 where a whole number is expected"),
        ({"is_eos_ignored": "no"}, "is_eos_ignored is 'no' where True or False is expected"),
        ({"max_new_tokens": "9"}, "max_new_tokens is '9' where a whole number is expected"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0 where 1 or more is expected"),
    ],
)
def test_a_wrong_keyword_is_refused_at_once(
    tiny_model: Model, keywords: dict[str, object], sentence: str
):
    for start in (
        lambda: tiny_model.generate("a", **keywords),
        lambda: tiny_model.chat(MESSAGES, **keywords),
        lambda: tiny_model.ask("a", **keywords),
        lambda: tiny_model.generate_many(["a"], **keywords),
        lambda: Conversation(tiny_model, **keywords),
        lambda: Conversation(tiny_model).ask("a", **keywords),
    ):
        with pytest.raises(SamplingError, match=sentence):
            start()
