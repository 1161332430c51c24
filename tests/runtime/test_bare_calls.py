"""GLM-Z1-Rumination's calls: a JSON object with name and arguments, however the text was cut."""

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glm_runtime.text.dialects.bare_json import BareJsonCalls
from glm_runtime.text.dialects.json_scanner import JsonScanner
from glm_runtime.text.tool_calls import ToolCall, ToolCallParser
from support.property_tests import examples

NAMES = ("search", "finish", 'a "b"')
CALL = '{"name": "search", "arguments": {"query": "诗"}}'
FINISH = '{"name": "finish", "arguments": {}}'
HEAD = re.compile(
    r'[ \t]*\{\s*"name"\s*:\s*(?P<name>"search"|"finish"|"a \\"b\\"")\s*,\s*'
    r'"arguments"\s*:\s*(?=\{)'
)


def parse(parts: list[str]) -> tuple[str, tuple[ToolCall, ...]]:
    parser = ToolCallParser(BareJsonCalls(NAMES))
    shown = "".join(parser.add(part) for part in parts)
    rest, calls = parser.finish()
    return shown + rest, calls


def find_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """By the rules: the first line, outside fences, from which on all is calls."""
    lines, is_fenced = text.split("\n"), False
    for i, line in enumerate(lines):
        if not is_fenced:
            calls = read_calls("\n".join(lines[i:]))
            if calls:
                return "\n".join(lines[:i]) + ("\n" if i else ""), calls
        is_fenced ^= line.lstrip().startswith("```")
    return text, ()


def read_calls(text: str) -> tuple[ToolCall, ...]:
    calls: list[ToolCall] = []
    while text.strip():
        head = HEAD.match(text)
        if head is None:
            return ()
        text = text[head.end() :]
        try:
            _, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            return ()
        name = json.loads(head["name"])
        calls.append(ToolCall(name, text[:end], f"call_{len(calls)}"))
        text = text[end:].lstrip(" \t\r\n")
        if not text.startswith("}"):
            return ()
        rest = text[1:].lstrip()
        if rest and "\n" not in text[1 : len(text) - len(rest)]:
            return ()
        text = rest
    return tuple(calls)


PIECES = st.lists(
    st.sampled_from(
        [
            *("{", "}", '"name"', ":", '"search"', '"finish"', ",", '"arguments"', "\n", " ", '"'),
            *('{"name": "finish", "arguments": ', '{"a": 1}', "{}", "```", "x", "\\", CALL, FINISH),
        ]
    ),
    max_size=14,
)


@examples(1500)
@given(PIECES)
@example([" ", "\n", FINISH])
def test_adversarial_texts_are_read_as_by_the_rules(pieces: list[str]):
    text = "".join(pieces)
    expected = find_calls(text)
    assert parse([text]) == expected
    assert parse(pieces) == expected
    assert parse(list(text)) == expected


@pytest.mark.parametrize("loop", [f"{FINISH}\n", '{"name": "finish", "arguments": {\n', "{\n"])
def test_a_loop_is_read_once(loop: str):
    looked = 0
    find_end = JsonScanner.find_end

    def count(scanner: JsonScanner, text: str) -> int | None:
        nonlocal looked
        looked += len(text)
        return find_end(scanner, text)

    text = loop * 500 + "and more"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JsonScanner, "find_end", count)
        parser = ToolCallParser(BareJsonCalls(NAMES))
        shown = "".join(parser.add(character) for character in text)
        assert shown + parser.finish()[0] == text
    assert looked < 4 * len(text)
