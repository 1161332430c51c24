"""GLM-4 All Tools: code, browser and prompts beside functions, however the text was cut."""

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glm_runtime.text.dialects.all_tools import TURN, AllToolsCalls, write_body
from glm_runtime.text.tool_calls import ToolCall, ToolCallParser
from runtime.test_python_calls import scan
from support.property_tests import examples

DIALECT = AllToolsCalls(("get", "python_path"), ("python", "simple_browser", "cogview"))
PYTHON = "python\nprint(6 * 7)\n"
BROWSER = 'simple_browser\nsearch("GLM-4", recency_days=7)'
CODE = ToolCall("python", '{"code": "print(6 * 7)\\n"}')
SEARCH = ToolCall("simple_browser", '{"action": "search", "query": "GLM-4", "recency_days": 7}')
FUNCTION_HEAD = re.compile(
    r"[ \t]*(get|python_path)[ \t]*\r?\n[ \t\r\n]*"
    r"(?P<fence>```[^\W\d_]*[ \t\r]*\n[ \t\r\n]*)?(?=\{)"
)
BROWSER_HEAD = re.compile(
    r"[ \t]*simple_browser[ \t]*\r?\n[ \t\r\n]*(?P<fence>```[^\W\d_]*[ \t\r]*\n[ \t\r\n]*)?"
    r"(?P<action>search|mclick|open_url)\("
)
RAW_HEAD = re.compile(r"[ \t]*(python|cogview)[ \t]*\r?\n")
PARAMETERS = {"search": ("query", "recency_days"), "mclick": ("ids",), "open_url": ("url",)}


def parse(parts: list[str]) -> tuple[str, tuple[ToolCall, ...]]:
    parser = ToolCallParser(DIALECT)
    shown = "".join(parser.add(part) for part in parts)
    rest, calls = parser.finish()
    return shown + rest, calls


def find_calls(text: str) -> tuple[str, list[tuple[str, str]]]:
    """By the rules: the first line or turn, outside fences, from which on all is calls."""
    is_fenced, line = False, ""
    for place in range(len(text) + 1):
        before = text[place - 1] if place else "\n"
        if text[place : place + 1] == TURN:
            is_fenced, line = False, ""
        if text[place : place + 1] == TURN or (before == "\n" and not is_fenced):
            calls = read_calls(text[place:], is_turn=place == 0)
            if calls:
                return text[:place].replace(TURN, "\n"), calls
        if text[place : place + 1] == "\n":
            is_fenced ^= line.lstrip().startswith("```")
            line = ""
        elif text[place : place + 1] != TURN:
            line += text[place : place + 1]
    return text.replace(TURN, "\n"), []


def read_calls(text: str, *, is_turn: bool) -> list[tuple[str, str]]:
    calls: list[tuple[str, str]] = []
    while text.replace(TURN, "").strip():
        is_turn |= text.startswith(TURN)
        found = read_call(text.removeprefix(TURN), is_turn=is_turn)
        if found is None:
            return []
        name, arguments, text = found
        calls.append((name, arguments))
        is_turn = False
        rest = text.lstrip()
        if "\n" not in text[: len(text) - len(rest)] and rest and not rest.startswith(TURN):
            return []
        text = rest
    return calls


def read_call(text: str, *, is_turn: bool) -> tuple[str, str, str] | None:
    """Name, arguments, and the text after the call."""
    if head := FUNCTION_HEAD.match(text):
        text = text[head.end() :]
        try:
            _, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            return None
        return close_fence(head, head[1], text[:end], text[end:])
    if head := BROWSER_HEAD.match(text):
        text = text[head.end() :]
        names = PARAMETERS[head["action"]]
        ends = (end for end in range(1, len(text) + 1) if text[end - 1] == ")")
        end = next((end for end in ends if scan(text[:end], names) is not None), 0)
        if not end:
            return None
        arguments = {"action": head["action"], **scan(text[:end], names)}
        if list(scan(text[:end], names)).count("action"):
            return None
        written = json.dumps(arguments, ensure_ascii=False)
        return close_fence(head, "simple_browser", written, text[end:])
    head = RAW_HEAD.match(text) if is_turn else None
    if head is None:
        return None
    body = text[head.end() :].partition(TURN)[0]
    key = "code" if head[1] == "python" else "prompt"
    written = json.dumps({key: body}, ensure_ascii=False)
    return (head[1], written, text[head.end() + len(body) :]) if body.strip() else None


def close_fence(
    head: re.Match[str], name: str, arguments: str, text: str
) -> tuple[str, str, str] | None:
    if head["fence"] and text.replace(TURN, "").strip():
        if not text.lstrip().startswith("```"):
            return None
        text = text.lstrip().removeprefix("```")
    return name, arguments, text


def test_only_declared_tools_are_called():
    for text in (PYTHON, BROWSER, "get\n{}"):
        parser = ToolCallParser(AllToolsCalls((), ("cogview",)))
        assert parser.add(text) + parser.finish()[0] == text


def test_a_function_may_have_the_name_of_a_tool():
    parser = ToolCallParser(AllToolsCalls(("python",), ()))
    assert parser.add('python\n{"a": 1}') == ""
    assert parser.finish()[1] == (ToolCall("python", '{"a": 1}'),)


PIECES = st.lists(
    st.sampled_from(
        [
            *(TURN, TURN, "\n", "python", "python\n", "cogview\n", "get\n{}", "get\n", "{", "x"),
            *("simple_browser\n", "search(", "'x'", ")", "mclick([1])", "```", "```python\n", " "),
            *("\r", PYTHON, BROWSER, "open_url('", ", ", '"'),
        ]
    ),
    max_size=12,
)


@examples(2000)
@given(PIECES)
@example(["```\n", TURN, PYTHON])
@example(["get\n", "{", "\n", TURN, "python\n", "x"])
def test_adversarial_texts_are_read_as_by_the_rules(pieces: list[str]):
    text = "".join(pieces)
    expected = find_calls(text)
    for parts in ([text], pieces, list(text)):
        shown, calls = parse(parts)
        assert (shown, [(call.name, call.arguments) for call in calls]) == expected


@pytest.mark.parametrize(
    ("name", "arguments", "body"),
    [
        ("python", '{"code": "print(1)\\n"}', "print(1)\n"),
        ("cogview", '{"prompt": "A cat."}', "A cat."),
        ("simple_browser", '{"action": "search", "query": "诗 \\"x\\""}', 'search("诗 \\"x\\"")'),
        (
            "simple_browser",
            '{"recency_days": 7, "action": "search", "query": "x"}',
            'search("x", recency_days=7)',
        ),
        ("simple_browser", '{"action": "mclick", "ids": [1, 2]}', "mclick([1, 2])"),
        ("simple_browser", '{"action": "open_url", "url": "a"}', 'open_url("a")'),
        (
            "simple_browser",
            '{"action": "search", "recency_days": null}',
            "search(recency_days=None)",
        ),
        ("simple_browser", '{"action": "look"}', '{"action": "look"}'),
        ("simple_browser", '{"query": "x"}', '{"query": "x"}'),
        ("python", "print(1)", "print(1)"),
        ("python", '{"code": 1}', '{"code": 1}'),
        ("python", "[1]", "[1]"),
    ],
)
def test_calls_are_written_as_the_model_writes_them(name: str, arguments: str, body: str):
    assert write_body(name, arguments) == body
