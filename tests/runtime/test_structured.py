"""Answers of a given form: always valid, by another library's judgement."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_runtime import (
    GenerationSettings,
    Grammar,
    GrammarError,
    MissingDependencyError,
    Model,
    Piece,
    SamplingSettings,
)
from glm_runtime.errors import GenerationError, GrammarStopError
from glm_runtime.sampling.structured import GrammarMask
from glm_runtime.text.answer import AnswerForm
from runtime.greedy_answers import text_of, with_eos

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "诗", "😀"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
JSON = Grammar("json_schema", json.dumps(PERSON))
LARK = Grammar("lark", 'start: ("床前" | "明月") NUMBER\nNUMBER: /[0-9]{2,4}/')


def answer(model: Model, grammar: Grammar, seed: int, **more) -> list[Piece]:
    sampling = SamplingSettings(temperature=1.5, seed=seed)
    chosen = GenerationSettings(sampling, 200, grammar=grammar, **more)
    return list(model.generate("床前明月光", chosen))


@pytest.mark.parametrize("is_speculative", [False, True])
def test_json_always_validates(tiny_model: Model, is_speculative: bool):
    """A random model at a high temperature would write noise."""
    texts = set()
    for seed in range(20):
        pieces = answer(tiny_model, JSON, seed, is_speculative=is_speculative)
        assert pieces[-1].finish_reason == "stop"
        jsonschema.validate(json.loads(text_of(pieces)), PERSON)
        texts.add(text_of(pieces))
    assert len(texts) > 15


SCHEMAS = st.recursive(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"enum": [1, "x", None]}])
    | st.integers(1, 6).map(lambda n: {"type": "string", "maxLength": n})
    | st.integers(0, 50).map(lambda n: {"type": "integer", "minimum": n, "maximum": 2 * n}),
    lambda inner: (
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(
            lambda fields: {
                "type": "object",
                "properties": fields,
                "required": sorted(fields),
                "additionalProperties": False,
            }
        )
        | inner.map(lambda item: {"type": "array", "items": item, "maxItems": 2})
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(schema=SCHEMAS, seed=st.integers(0, 3))
def test_any_schema_is_followed(tiny_model: Model, schema: dict, seed: int):
    pieces = answer(tiny_model, Grammar("json_schema", json.dumps(schema)), seed)
    if pieces[-1].finish_reason == "stop":
        jsonschema.validate(json.loads(text_of(pieces)), schema)
    else:
        assert len(pieces) == 200


@pytest.mark.parametrize(
    "pattern", [r"[0-9]{3}-[a-f]+", r"(床|前){2,5}!", r"yes|no", r"\d{4}-\d\d-\d\d"]
)
def test_a_regular_expression_matches_from_end_to_end(tiny_model: Model, pattern: str):
    for seed in range(10):
        pieces = answer(tiny_model, Grammar("regex", pattern), seed)
        if pieces[-1].finish_reason == "stop":
            assert re.fullmatch(pattern, text_of(pieces))
        else:
            assert len(pieces) == 200 and "+" in pattern


def test_a_lark_grammar_is_followed(tiny_model: Model):
    found = {text_of(answer(tiny_model, LARK, seed)) for seed in range(20)}
    assert len(found) > 5
    assert all(re.fullmatch("(床前|明月)[0-9]{2,4}", text) for text in found)


def test_thinking_is_free_and_the_answer_is_not(tiny_model: Model):
    chosen = GenerationSettings(
        SamplingSettings(temperature=1.5, seed=1), 220, max_thinking_tokens=9, grammar=JSON
    )
    form = AnswerForm(is_chat=True, is_thinking=True)
    pieces = list(tiny_model.new_session().generate([5, 6, 7], chosen, form))
    assert "".join(piece.reasoning for piece in pieces)
    jsonschema.validate(json.loads(text_of(pieces)), PERSON)


def test_the_likeliest_allowed_token_is_taken(tiny_model: Model):
    """Greedy, checked against the logits: no other allowed token has a higher one."""
    chosen = GenerationSettings(SamplingSettings(temperature=0), 40, grammar=LARK, top_logprobs=400)
    mask = GrammarMask(LARK, tiny_model.tokenizer, tiny_model.manifest.model)
    for piece in tiny_model.generate("床前", chosen):
        scores = np.full(tiny_model.manifest.model.tokenizer_vocab_size, -np.inf, np.float32)
        assert piece.logprobs is not None
        for id_, value in piece.logprobs.top:
            scores[id_] = value
        mask(scores)
        assert scores[piece.token_id] == scores.max()
        mask.accept(piece.token_id)


@pytest.mark.parametrize(
    ("grammar", "sentence"),
    [
        (Grammar("json_schema", "{"), "the json schema cannot be used"),
        (Grammar("json_schema", "[1]"), "the json schema cannot be used"),
        (Grammar("json_schema", '{"type": "objekt"}'), "json schema cannot be used.*objekt"),
        (Grammar("regex", "("), "the regex cannot be used.*unclosed group"),
        (Grammar("lark", "start: foo"), "the lark cannot be used.*unknown name"),
    ],
)
def test_a_grammar_that_is_none_is_refused_at_once(
    tiny_model: Model, grammar: Grammar, sentence: str
):
    with pytest.raises(GrammarError, match=sentence):
        tiny_model.generate("a", GenerationSettings(grammar=grammar))  # not even iterated


def test_a_token_against_the_grammar_is_refused(tiny_model: Model):
    mask = GrammarMask(Grammar("regex", "[0-9]+"), tiny_model.tokenizer, tiny_model.manifest.model)
    with pytest.raises(GrammarStopError, match="the grammar cannot be applied any further"):
        mask.accept(tiny_model.tokenizer.encode("a")[0])


def test_a_grammar_that_becomes_too_complex_is_what_the_caller_gave(tiny_model: Model):
    """A server answers it as a wrong request, and a chat goes on."""
    choices = [{"type": "array", "prefixItems": [{"const": one}]} for one in range(2500)]
    schema = {
        "type": "object",
        "properties": {"a": {"const": "b"}, "c": {"anyOf": choices}},
        "required": ["a", "c"],
        "additionalProperties": False,
    }
    with pytest.raises(GrammarError, match="Current row has 7500 items; max is 2000") as caught:
        list(tiny_model.generate("x", json_schema=schema))
    assert isinstance(caught.value, GenerationError)


def test_without_llguidance_one_sentence_says_what_to_install(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingDependencyError, match="`pip install llguidance`"):
        tiny_model.generate("a", GenerationSettings(grammar=JSON))


def test_each_set_of_ends_has_its_own_vocabulary(tiny_model: Model):
    """Two models may share a tokenizer and end answers otherwise: here with V, which then came
    after `f` as if it were the end."""
    other = with_eos(tiny_model, tiny_model.tokenizer.encode("V")[0])
    for model in (other, tiny_model, other):
        mask = GrammarMask(Grammar("regex", "f+"), model.tokenizer, model.manifest.model)
        mask.accept(model.tokenizer.encode("f")[0])
        scores = np.zeros(model.manifest.model.tokenizer_vocab_size, np.float32)
        mask(scores)
        for token in model.manifest.model.eos_token_ids:
            assert scores[token] == 0
        assert (scores[model.tokenizer.encode("V")[0]] == 0) == (model is other)


def test_blank_lines_that_the_grammar_asks_for_stay(tiny_model: Model):
    """In chats, where other answers lose them."""
    chosen = GenerationSettings(SamplingSettings(seed=1), grammar=Grammar("regex", "\n  x=[0-9]"))
    form = AnswerForm(is_chat=True)
    pieces = tiny_model.new_session().generate([5, 6], chosen, form)
    assert re.fullmatch("\n  x=[0-9]", text_of(list(pieces)))


def test_a_source_that_is_no_text_is_refused():
    with pytest.raises(GrammarError, match=r"the regex cannot be used.*surrogates not allowed"):
        Grammar("regex", "a\ud800")


CHILD = """
import json, sys
sys.setrecursionlimit(50_000)
import glm_runtime
from glm_runtime.sampling.structured import GrammarMask
model = glm_runtime.load(sys.argv[1])
links = 12_000
refs = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(5_000)} | {"a5000": {"enum": ["x"]}}
rules = "".join(f"r{i}:r{i + 1}\\n" for i in range(links))
grammars = {
    "json_schema": json.dumps({"$defs": refs, "$ref": "#/$defs/a0"}),
    "lark": f"start:r0\\n{rules}r{links}:\\"x\\"\\n",
}
for kind, source in grammars.items():
    settings = glm_runtime.GenerationSettings(
        max_new_tokens=9, grammar=glm_runtime.Grammar(kind, source)
    )
    print(kind, "".join(piece.text for piece in model.generate("a", settings)))
"""


def test_deep_grammars_do_not_end_the_process(tiny_folder: Path) -> None:
    """llguidance recurses once for each rule; 3,000 of them once were a segmentation fault."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tiny_folder)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (0, 'json_schema "x"\nlark x\n'), done.stderr


def test_a_grammar_that_is_too_long_is_refused() -> None:
    with pytest.raises(GrammarError, match="it has 200001 characters where 200000 are the limit"):
        Grammar("lark", "a" * 200_001)


def nest_patterns(count: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for index in range(1, count + 1):
        schema = {"type": "string", "pattern": f".*(a|b){{{index}}}.*", "anyOf": [schema]}
    return schema


def chain_patterns(count: int) -> dict[str, Any]:
    places = {
        f"p{index}": {"pattern": f"x{{{index}}}", "$ref": f"#/$defs/p{index + 1}"}
        for index in range(count)
    }
    return {"$ref": "#/$defs/p0", "$defs": {**places, f"p{count}": {"type": "string"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"type": "string", "pattern": f".*(a|b){{{index}}}.*"} for index in range(59)]},
        nest_patterns(20),
        chain_patterns(20),
    ],
)
def test_many_patterns_of_one_text_are_refused(schema: dict[str, Any]) -> None:
    """llguidance did not end, and took gigabytes: 13 patterns take 5 s, each further one more."""
    with pytest.raises(GrammarError, match=r"it combines \d+ patterns.* 8 are the limit"):
        Grammar.from_schema(schema)


def test_many_patterns_of_different_texts_are_no_problem() -> None:
    fields = {
        f"f{index}": {"anyOf": [{"type": "string", "pattern": f"a{{{index}}}"}, {"type": "null"}]}
        for index in range(100)
    }
    Grammar.from_schema({"type": "object", "properties": fields})
    Grammar.from_schema({"allOf": [{"type": "string", "pattern": "a"}] * 59})
