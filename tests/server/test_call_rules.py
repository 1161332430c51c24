"""A grammar makes the model call a tool in its own dialect, and the parser reads the call."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import glm_runtime
from glm_runtime.errors import GrammarError
from glm_runtime.text.dialects.all_tools import AllToolsCalls
from glm_runtime.text.dialects.bare_json import BareJsonCalls
from glm_runtime.text.dialects.dialect import CallDialect
from glm_runtime.text.dialects.name_line import NameLineCalls
from glm_runtime.text.dialects.python_call import PythonCalls
from glm_runtime.text.dialects.tagged import TaggedCalls
from glm_runtime.text.tool_calls import ToolCallParser
from glm_server.forms import CallRules, make_grammar

TOOLS: Mapping[str, Any] = {
    "get_verse": {
        "type": "object",
        "properties": {
            "reference": {"type": "string", "maxLength": 8},
            "count": {"type": "integer", "minimum": 0, "maximum": 9},
            "kind": {"enum": ["prose", "it's <verse>"]},
            "is_whole": {"type": "boolean"},
        },
        "required": ["count", "kind"],
        "additionalProperties": False,
    },
    "stop": {"type": "object", "properties": {}, "additionalProperties": False},
    "turn": {
        "type": "object",
        "properties": {"left": {"type": "boolean"}, "right": {"type": "boolean"}},
        "additionalProperties": False,
    },
}
NAMES = tuple(TOOLS)
DIALECTS: list[CallDialect] = [
    NameLineCalls(NAMES),
    AllToolsCalls(NAMES, ()),
    BareJsonCalls(NAMES),
    PythonCalls(NAMES),
    TaggedCalls(TOOLS),
]
LENGTH = 150


@pytest.fixture(scope="module")
def model(sample_folder: Path) -> glm_runtime.Model:
    return glm_runtime.load(sample_folder, "cpu", 1)


@pytest.mark.parametrize("is_single", [True, False])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: type(one).__name__)
def test_random_answers_are_calls_that_match_their_schemas(
    model: glm_runtime.Model, dialect: CallDialect, is_single: bool
) -> None:
    """The temperature makes the model choose what the grammar allows, likely or not."""
    rules = CallRules(must_call=True, is_single=is_single, has_turns=True)
    grammar = make_grammar(None, TOOLS, dialect, rules)
    called = set()
    for seed in range(10):
        pieces = list(
            model.generate("Call", grammar=grammar, temperature=2, seed=seed, max_new_tokens=LENGTH)
        )
        parser = ToolCallParser(dialect, is_eager=True)
        text = parser.add("".join(piece.text for piece in pieces))
        rest, calls = parser.finish()
        if pieces[-1].finish_reason == "length":
            calls = calls[:-1]  # call after call, of which the last one is cut off
        else:
            assert text + rest == ""
            assert calls
        assert len(calls) <= 1 or not is_single
        for call in calls:
            assert "\n" not in call.arguments  # with free white space a model may never end
            jsonschema.validate(json.loads(call.arguments), TOOLS[call.name])
            called.add(call.name)
    assert len(called) > 1


def test_what_python_calls_cannot_express_is_refused() -> None:
    schema = {"type": "object", "properties": {"ids": {"type": "array"}}}
    with pytest.raises(GrammarError, match="the argument 'ids' has the types array"):
        make_grammar(None, {"get": schema}, PythonCalls(("get",)), CallRules(must_call=True))
