"""With strict tools an answer is free, but no call of a strict tool breaks its schema."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema
import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_runtime.sampling.structured import Grammar
from glm_runtime.text.answer import TURN_NAME
from glm_runtime.text.dialects.all_tools import AllToolsCalls
from glm_runtime.text.dialects.bare_json import BareJsonCalls
from glm_runtime.text.dialects.dialect import CallDialect
from glm_runtime.text.dialects.name_line import NameLineCalls
from glm_runtime.text.dialects.python_call import PythonCalls
from glm_runtime.text.dialects.tagged import TaggedCalls
from glm_runtime.text.tokenizer import Tokenizer
from glm_runtime.text.tool_calls import ToolCall, ToolCallParser
from glm_server.forms import CallRules, make_grammar
from support.tiny_models import SPECIAL_TOKENS, build_tokenizer

NUMBER = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
TOOLS: Mapping[str, Any] = {"get": NUMBER, "get_verse": NUMBER, "free": {"type": "object"}}
STRICT = ("get", "get_verse")
NAMES = tuple(TOOLS)
TOKENIZER = Tokenizer(build_tokenizer())
EOS = TOKENIZER.find_id(SPECIAL_TOKENS[0])
LINES = ("get\n", "get_verse\n", " get\t\r\n", "free\n", '{"n": 1}', '{"n": 1', '{"n": "x"}', "{}")
FENCES = ("```", "```json\n", "`", "``", "```\nget\n{}\n```\n")
COMMON = ("\n", " ", "get", "get_verse", "a word", "}", "free", *FENCES)
PYTHON = ("tool_call(n=1)", "```python\ntool_call(n=2)\n```", "tool_call(n='x')", "tool_call()")
CALLS = tuple(f"<tool_call>{name}{end}" for name in NAMES for end in ("", "\n", " ", "<"))
ARGUMENTS = (
    "<arg_key>n</arg_key>\n<arg_value>",
    "7</arg_value>\n",
    "x</arg_value>",
    "</tool_call>",
)
BARE = ('{"name": "get', '"get"', '{"name"', ' : "get_verse"', ', "arguments": {"n": 1}}', "{}}")
# Of each dialect: the pieces of texts, a call that follows the schema, and one that does not.
DIALECTS: Mapping[str, tuple[CallDialect, tuple[str, ...], str, str]] = {
    "lines": (NameLineCalls(NAMES), LINES, 'get\n{"n": 1}', 'get\n{"m": 1}'),
    "all tools": (AllToolsCalls(NAMES, ()), LINES, 'get_verse\n{"n": 1}', "get_verse\n{}"),
    "python": (
        PythonCalls(NAMES),
        (*LINES[:4], *PYTHON),
        "get\n```python\ntool_call(n=1)\n```",
        "get\n```python\ntool_call(n='x')\n```",
    ),
    "tags": (
        TaggedCalls(TOOLS),
        (*CALLS, *ARGUMENTS),
        "<tool_call>get\n<arg_key>n</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
        "<tool_call>get<arg_key>n</arg_key>\n<arg_value>x</arg_value>\n</tool_call>",
    ),
    "bare": (
        BareJsonCalls(NAMES),
        BARE,
        '{"name": "get", "arguments": {"n": 1}}',
        '{"name": "get", "arguments": {}}',
    ),
}


@cache
def make(name: str, *, is_single: bool = False) -> llguidance.LLMatcher:
    rules = CallRules(strict=STRICT, has_turns=True, is_single=is_single)
    grammar = make_grammar(None, TOOLS, DIALECTS[name][0], rules)
    assert grammar is not None
    return start(grammar)


def start(grammar: Grammar) -> llguidance.LLMatcher:
    vocabulary = TOKENIZER.grammar_vocabulary(262, [EOS])
    found = llguidance.LLMatcher.validate_grammar_with_warnings(grammar.source, vocabulary)
    assert found == (False, [])
    return llguidance.LLMatcher(vocabulary, grammar.source, log_level=0)


def list_tokens(text: str) -> Iterator[int]:
    """The tokens of a text, in which `TURN_NAME` is a special one."""
    return iter(TOKENIZER.encode(text))


def is_allowed(matcher: llguidance.LLMatcher, text: str) -> bool:
    """Whether an answer may be this text."""
    used = matcher.deep_copy()
    tokens = list(list_tokens(text))
    return (
        used.validate_tokens(tokens) == len(tokens)
        and used.consume_tokens(tokens)
        and (used.is_accepting())
    )


def parse(dialect: CallDialect, text: str, *, is_eager: bool) -> tuple[ToolCall, ...]:
    parser = ToolCallParser(dialect, is_eager=is_eager)
    parser.add(text.replace(TURN_NAME, dialect.mark if dialect.mark_text == "\n" else "\n"))
    return parser.finish()[1]


@pytest.mark.parametrize("name", DIALECTS)
def test_right_calls_are_allowed_and_wrong_ones_are_not(name: str) -> None:
    _, _, right, wrong = DIALECTS[name]
    matcher = make(name)
    for before in ("", "Well:\n", "\n\n", f"Well.{TURN_NAME}", "```\nx\n```\n", "a ` `` \n"):
        assert is_allowed(matcher, before + right), before
        assert not is_allowed(matcher, before + wrong), before
        assert not is_allowed(matcher, f"{before}{right}\nMore text."), before
        assert is_allowed(matcher, f"{before}{right}\n{right}"), before
        assert is_allowed(matcher, f"{before}{right}{TURN_NAME}{right}"), before
        assert not is_allowed(matcher, f"{before}{right}{TURN_NAME}{wrong}"), before
    for text in ("", "Hello", "get", f"```\n{wrong}\n```\n", "so get it\n", "{", "<tool_call>x"):
        assert is_allowed(matcher, text), text
    single = make(name, is_single=True)
    assert is_allowed(single, f"Well:\n{right}")
    assert not is_allowed(single, f"Well:\n{right}\n{right}")


@pytest.mark.parametrize("name", DIALECTS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_what_is_allowed_has_no_wrong_call(name: str, data: st.DataObject) -> None:
    """Random texts are cut where the grammar forbids the next byte."""
    dialect, pieces, right, wrong = DIALECTS[name]
    choice = st.sampled_from([*pieces, *pieces, *COMMON, TURN_NAME, right, wrong])
    tokens = list(list_tokens("".join(data.draw(st.lists(choice, max_size=8)))))
    matcher = make(name)
    allowed = tokens[: matcher.validate_tokens(tokens)]
    text = b"".join(map(TOKENIZER.token_bytes, allowed)).decode("utf-8", "ignore")
    for call in parse(dialect, text, is_eager=False):
        if call.name in STRICT:
            jsonschema.validate(json.loads(call.arguments), NUMBER)


def test_many_strict_tools_take_no_longer_than_a_step() -> None:
    names = [f"tool_{number}" for number in range(128)]
    rules = CallRules(strict=names)
    grammar = make_grammar(None, dict.fromkeys(names, NUMBER), NameLineCalls(tuple(names)), rules)
    assert grammar is not None
    matcher = start(grammar)
    assert is_allowed(matcher, 'Well:\ntool_127\n{"n": 1}')
    assert not is_allowed(matcher, "Well:\ntool_127\n{}")
