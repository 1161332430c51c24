"""GLM-4.5's calls between tags, against a slow reader of whole answers, in pieces of any size."""

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glm_runtime.text.chat_template import ChatTemplate
from glm_runtime.text.dialects.tagged import TaggedCalls
from glm_runtime.text.tool_calls import ToolCall, ToolCallParser
from support.chat_templates import READS_CALLS
from support.property_tests import examples

PARAMETERS: dict[str, Any] = {
    "get_verse": {
        "type": "object",
        "properties": {
            "reference": {"type": "string"},
            "count": {"type": "integer"},
            "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "kind": {"enum": ["1", "2"]},
            "either": {"type": ["string", "integer"]},
            "nested": {"$ref": "#/$defs/Nested"},
            "endless": {"$ref": "#/properties/endless"},
            "twice": {"anyOf": [{"$ref": "#/properties/twice"}, {"$ref": "#/properties/twice"}]},
        },
        "$defs": {"Nested": {"type": "object"}},
    },
    "get": None,
    "查诗": {},
}
CALL = (
    "<tool_call>get_verse\n<arg_key>reference</arg_key>\n<arg_value>Micah 6:8</arg_value>\n"
    "</tool_call>"
)
BARE = "<tool_call>get</tool_call>"
TEMPLATE = ChatTemplate(READS_CALLS)
PATTERN = re.compile(
    r"<tool_call>[ \t\r\n]*(?P<name>get_verse|get|查诗)[ \t\r\n]*(?P<pairs>"
    r"(?:<arg_key>[^<\n]*[^<\s][^<\n]*</arg_key>[ \t\r\n]*"
    r"<arg_value>(?:(?!</arg_value>)[\s\S])*</arg_value>[ \t\r\n]*)*)</tool_call>"
)
PAIR = re.compile(
    r"<arg_key>([^<\n]*)</arg_key>\s*<arg_value>((?:(?!</arg_value>)[\s\S])*)</arg_value>"
)


def parse(parts: list[str]) -> tuple[str, tuple[ToolCall, ...]]:
    parser = ToolCallParser(TaggedCalls(PARAMETERS))
    shown = "".join(parser.add(part) for part in parts)
    rest, calls = parser.finish()
    return shown + rest, calls


def find_calls(text: str) -> tuple[str, list[tuple[str, Any]]]:
    """By the rules: the first tag outside of fences from which on all is calls."""
    is_fenced, begin = False, 0
    for line in text.split("\n"):
        is_fence = line.lstrip().startswith("```")
        for match in re.finditer("<tool_call>", line):
            if is_fenced or line[: match.start()].lstrip().startswith("```"):
                continue
            calls = read_calls(text[begin + match.start() :])
            if calls:
                return text[: begin + match.start()], calls
        is_fenced ^= is_fence
        begin += len(line) + 1
    return text, []


def read_calls(text: str) -> list[tuple[str, Any]]:
    calls = []
    while text.strip():
        match = PATTERN.match(text)
        if match is None:
            return []
        pairs = [(key.strip(), read_value(value)) for key, value in PAIR.findall(match["pairs"])]
        calls.append((match["name"], dict(pairs)))
        text = text[match.end() :].lstrip()
    return calls


def read_value(text: str) -> Any:
    """Where the schema says nothing, as for all keys of the adversarial texts."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(found, str) else found


def loaded(calls: tuple[ToolCall, ...]) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("reference", "Micah 6:8", '"Micah 6:8"'),
        ("reference", '12 "a"\n <b>\t', '"12 \\"a\\"\\n <b>\\t"'),
        ("reference", "12", '"12"'),
        ("reference", '{"a": 1}', '"{\\"a\\": 1}"'),
        ("reference", "", '""'),
        ("reference", "诗</arg_valu>", '"诗</arg_valu>"'),
        ("count", "12", "12"),
        ("count", " 12\n", "12"),
        ("count", "twelve", '"twelve"'),
        ("count", "true", "true"),
        ("count", "[1, NaN]", '"[1, NaN]"'),
        ("maybe", "null", "null"),
        ("maybe", "12", '"12"'),
        ("kind", "1", '"1"'),
        ("either", "1", "1"),
        ("either", "true", '"true"'),
        ("nested", '{"a":  [1, "x"]}', '{"a":  [1, "x"]}'),
        ("unknown", "12", "12"),
        ("unknown", '"quoted"', '"\\"quoted\\""'),
        ("endless", "1", "1"),
        ("twice", "1", "1"),
    ],
)
def test_a_string_stays_one_and_other_values_are_json(key: str, value: str, expected: str):
    """As the template writes them: a string as it is, and everything else as JSON."""
    text = f"<tool_call>get_verse<arg_key>{key}</arg_key><arg_value>{value}</arg_value></tool_call>"
    expected_call = ToolCall("get_verse", f'{{"{key}": {expected}}}')
    assert parse([text]) == ("", (expected_call,))
    assert parse(list(text)) == ("", (expected_call,))


def test_text_is_not_held_back_longer_than_it_may_be_a_call():
    parser = ToolCallParser(TaggedCalls(PARAMETERS))
    assert parser.add("I look <") == "I look "
    assert parser.add("b>") == "<b>"
    assert parser.add("<tool_call>g") == ""
    assert parser.add("ot") == "<tool_call>got"


PIECES = st.lists(
    st.sampled_from(
        [
            *("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>"),
            *("</arg_value>", "get", "get_verse", "查诗", "a", "\n", " ", "1", "<", ">", "```"),
            *("<tool_call>get\n", "<arg_key>a</arg_key>", "<arg_value>1</arg_value>", BARE, CALL),
            *('"', "\\", "{", "}", "<tool_call>get<arg_key>a</arg_key><arg_value>"),
        ]
    ),
    max_size=14,
)


@examples(1500)
@given(PIECES)
@example(["```", BARE])
def test_adversarial_texts_are_read_as_by_the_rules(pieces: list[str]):
    text = "".join(pieces)
    expected = find_calls(text)
    for parts in ([text], pieces, list(text)):
        shown, calls = parse(parts)
        assert (shown, loaded(calls)) == expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@examples(300)
@given(st.dictionaries(st.sampled_from(["a", "b c", "诗", "d"]), VALUES))
def test_what_the_template_writes_is_read_back(arguments: dict[str, Any]):
    """A string that is JSON needs a schema, which says that it is a string."""
    kinds = {str: "string", int: "integer", bool: "boolean", list: "array", dict: "object"}
    properties = {key: {"type": kinds.get(type(value), "null")} for key, value in arguments.items()}
    call = {"function": {"name": "get", "arguments": json.dumps(arguments)}}
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": [call]}]
    text = TEMPLATE.render(messages, is_answer_next=False)
    answer = text[text.index("<tool_call>") :].rstrip()
    if any("</arg_value>" in value for value in arguments.values() if isinstance(value, str)):
        return
    parser = ToolCallParser(TaggedCalls({"get": {"properties": properties}}))
    assert parser.add(answer) == ""
    rest, calls = parser.finish()
    assert rest == "" and loaded(calls) == [("get", arguments)]


def test_a_loop_of_calls_before_a_text_is_text():
    parser = ToolCallParser(TaggedCalls(PARAMETERS))
    for loop in (BARE + "\n", CALL, "<tool_call>get<arg_key>a</arg_key><arg_value>"):
        text = loop * 2000 + "and more"
        assert parser.add(text) + parser.finish()[0] == text
        parser = ToolCallParser(TaggedCalls(PARAMETERS))
