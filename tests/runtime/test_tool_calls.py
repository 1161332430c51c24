"""Calls told from text, against a slow reader of whole answers, however the text was cut."""

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glm_runtime.text.dialects.json_scanner import JsonScanner
from glm_runtime.text.dialects.name_line import NameLineCalls
from glm_runtime.text.tool_calls import ToolCall, ToolCallParser
from support.property_tests import examples

NAMES = ("get_verse", "get", "查诗")
CALL = 'get_verse\n{"reference": "Micah 6:8"}'
OBJECT = '{"reference": "Micah 6:8"}'
HEAD = re.compile(
    r"[ \t]*(?P<name>get_verse|get|查诗)[ \t]*\r?\n[ \t\r\n]*"
    r"(?:(?P<fence>```)[^\W\d_]*[ \t\r]*\n[ \t\r\n]*)?(?=\{)"
)


def parse(parts: list[str], names: tuple[str, ...] = NAMES) -> tuple[str, tuple[ToolCall, ...]]:
    parser = ToolCallParser(NameLineCalls(names))
    shown = "".join(parser.add(part) for part in parts)
    rest, calls = parser.finish()
    return shown + rest, calls


def find_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """By the rules: the first line, outside fences, from which on all is calls."""
    lines = text.split("\n")
    is_fenced = False
    for i, line in enumerate(lines):
        if not is_fenced:
            calls = read_calls("\n".join(lines[i:]))
            if calls:
                return "\n".join(lines[:i]) + ("\n" if i else ""), calls
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
    return text, ()


def read_calls(text: str) -> tuple[ToolCall, ...]:
    """The calls that make up all of a text; none if anything else is there."""
    calls = []
    decoder = json.JSONDecoder()
    while text.strip():
        head = HEAD.match(text)
        if head is None:
            return ()
        rest = text[head.end() :]
        try:
            _, end = decoder.raw_decode(rest)
            assert "NaN" not in rest[:end]
        except (ValueError, AssertionError):
            return ()
        calls.append(ToolCall(head["name"], rest[:end], f"call_{len(calls)}"))
        rest = rest[end:]
        if head["fence"] and rest.strip():
            if not rest.lstrip().startswith("```"):
                return ()
            rest = rest.lstrip().removeprefix("```")
        text = rest.lstrip()
        if text and "\n" not in rest[: len(rest) - len(text)]:
            return ()
    return tuple(calls)


def test_without_tools_everything_is_text_at_once():
    parser = ToolCallParser(None)
    assert parser.add(CALL) == CALL
    assert parser.finish() == ("", ())


def test_text_is_not_held_back_longer_than_it_may_be_a_call():
    parser = ToolCallParser(NameLineCalls(NAMES))
    assert parser.add("I look") == "I look"
    assert parser.add(" it up.\nge") == " it up.\n"
    assert parser.add("t") == ""
    assert parser.add("ting") == "getting"


@pytest.mark.parametrize("character", "xE'#<（")
def test_what_json_does_not_allow_ends_the_wait_for_a_call(character: str):
    parser = ToolCallParser(NameLineCalls(NAMES))
    assert parser.add('get\n{"a": [1, ') == ""
    shown = parser.add(character)
    assert shown == ("" if character == "E" else 'get\n{"a": [1, ' + character)


def test_a_line_break_inside_a_string_ends_the_wait_for_a_call():
    parser = ToolCallParser(NameLineCalls(NAMES))
    assert parser.add('get\n{"a": "x') == ""
    assert parser.add("\n") == 'get\n{"a": "x\n'


@pytest.mark.parametrize("word", ["01", "tru", "1.", "-", "1e", "nulll"])
def test_a_wrong_number_or_constant_ends_the_wait_for_a_call(word: str):
    parser = ToolCallParser(NameLineCalls(NAMES))
    assert parser.add(f'get\n{{"a": {word}') == ""
    assert parser.add(",") == f'get\n{{"a": {word},'


PIECES = st.lists(
    st.sampled_from(
        [
            *NAMES,
            CALL,
            "\n",
            "{",
            "}",
            '"',
            "\\",
            ":",
            "{}",
            '{"a": 1}',
            " ",
            "```",
            "```json\n",
            "\r",
            "\t",
            "a",
            "{[",
            "]}",
        ]
    ),
    max_size=14,
)


@examples(1500)
@given(PIECES)
@example(["get", "\n", "{", "\n", "get", "\n", "{}"])
def test_adversarial_texts_are_read_as_by_the_rules(pieces: list[str]):
    text = "".join(pieces)
    expected = find_calls(text)
    assert parse([text]) == expected
    assert parse(pieces) == expected
    assert parse(list(text)) == expected


@pytest.mark.parametrize("head", ["get\n{bad\n", "get\n{\n", 'get\n{"a": "\n', 'get\n{"a": [\n'])
def test_a_loop_of_broken_calls_is_text_at_once(head: str):
    """Held to the end, 16,000 of them took a minute. Each character may be looked at 4 times."""
    looked = 0
    find_end = JsonScanner.find_end

    def count(scanner: JsonScanner, text: str) -> int | None:
        nonlocal looked
        looked += len(text)
        return find_end(scanner, text)

    text = head * 500
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JsonScanner, "find_end", count)
        parser = ToolCallParser(NameLineCalls(NAMES))
        shown = "".join(parser.add(character) for character in text)
        assert len(shown) > len(text) - 40
        assert shown + parser.finish()[0] == text
    assert looked < 4 * len(text)


def test_a_loop_of_calls_before_a_text_is_read_once():
    """None of them is a call. 2,000 took 30 seconds, because each was read to the end."""
    looked = 0
    find_end = JsonScanner.find_end

    def count(scanner: JsonScanner, text: str) -> int | None:
        nonlocal looked
        looked += len(text)
        return find_end(scanner, text)

    text = "get\n{}\n" * 500 + "and more"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JsonScanner, "find_end", count)
        parser = ToolCallParser(NameLineCalls(NAMES))
        shown = "".join(parser.add(character) for character in text)
        assert shown + parser.finish()[0] == text
    assert looked < 4 * len(text)
