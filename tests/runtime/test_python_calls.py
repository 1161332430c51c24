"""ChatGLM3's calls, whose arguments are read as Python's own `ast.literal_eval` reads them."""

import ast
import json
import re
import warnings
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glm_runtime.text.dialects.python_call import PythonCalls, write_body
from glm_runtime.text.dialects.python_literals import ArgumentScanner
from glm_runtime.text.tool_calls import ToolCall, ToolCallParser
from support.property_tests import examples

NAMES = ("get_verse", "get", "查诗")
CALL = "get_verse\n ```python\ntool_call(reference='Micah 6:8', count=2)\n```"
ARGUMENTS = '{"reference": "Micah 6:8", "count": 2}'
BARE = "get\ntool_call()"
HEAD = re.compile(
    r"[ \t]*(?P<name>get_verse|get|查诗)[ \t]*\r?\n[ \t\r\n]*"
    r"(?:(?P<fence>```)[^\W\d_]*[ \t\r]*\n[ \t\r\n]*)?(?=tool_call\()"
)


def parse(parts: list[str]) -> tuple[str, tuple[ToolCall, ...]]:
    parser = ToolCallParser(PythonCalls(NAMES))
    shown = "".join(parser.add(part) for part in parts)
    rest, calls = parser.finish()
    return shown + rest, calls


def scan(text: str, positional: tuple[str, ...] = ()) -> Any:
    """The arguments of a text after the opening parenthesis; None if there are none."""
    scanner, parts = ArgumentScanner(positional), ["{"]
    end = scanner.read(text, parts)
    if scanner.is_broken or end != len(text):
        return None
    return json.loads("".join(parts))


def evaluate(text: str) -> Any:
    """The same by Python's parser; None for what our literals do not have."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unknown escapes
            call = ast.parse(f"f({text}", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args and call.end_col_offset is not None
        nodes = [keyword.value for keyword in call.keywords]
        found = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        return None
    return found if all(is_ours(node) for node in nodes) and is_json(found) else None


def is_ours(node: ast.expr) -> bool:
    """Whether a literal is one that a model's JSON can have."""
    kinds = (ast.Constant, ast.List, ast.Dict, ast.Load, ast.UnaryOp, ast.USub)
    nodes = list(ast.walk(node))
    keys = [key for one in nodes if isinstance(one, ast.Dict) for key in one.keys]
    are_texts = all(isinstance(key, ast.Constant) and isinstance(key.value, str) for key in keys)
    return are_texts and all(isinstance(one, kinds) for one in nodes)


def is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False).encode()
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        return False
    return True


ACCEPTED = {
    ")": {},
    "a=1)": {"a": 1},
    " a = -1.5e3 , )": {"a": -1500.0},
    "a='x', b=\"y'\")": {"a": "x", "b": "y'"},
    "a='\\n\\t\\\\\\'\\x41\\u8bd7\\U0001F600\\101\\0\\8\\d')": {"a": "\n\t\\'A诗😀A\0\\8\\d"},
    "a='\\1\\12x')": {"a": "\x01\nx"},
    "a='one\\\ntwo')": {"a": "onetwo"},
    "a=True, b=False, c=None)": {"a": True, "b": False, "c": None},
    "a=[1, [], 'x',], b={'k': [{}], \"l\": None,})": {
        "a": [1, [], "x"],
        "b": {"k": [{}], "l": None},
    },
    "\n  诗_1='\t',\n  from_='b'\n)": {"诗_1": "\t", "from_": "b"},
}
REFUSED = [
    "1)",
    "a)",
    "a=)",
    "a=b)",
    "a=1 2)",
    "a=1, a=2)",
    "a=1,, b=2)",
    ",)",
    "a=01)",
    "a=1.)",
    "a=+1)",
    "a=0x10)",
    "a=1_000)",
    "a=nan)",
    "a=true)",
    "a=r'x')",
    "a='x' 'y')",
    "a='x'\"y\")",
    "a='''x''')",
    "a='x\n')",
    "a='\\N{DASH}')",
    "a='\\xg1')",
    "a='\\ud83d')",
    "a='\\U00110000')",
    "a=(1))",
    "a={1: 2})",
    "a={'k'})",
    "a={'k': 1 'l': 2})",
    "a=[1: 2])",
    "a=[b=1])",
    "a=[1})",
    "a=[1)",
    "a=f(1))",
    "a=__import__('os'))",
    "1a=1)",
    "a-b=1)",
    "a='x'; b=1)",
    "'a'=1)",
    "*a)",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_literals(text: str):
    assert scan(text) == ACCEPTED[text] == evaluate(text)


@pytest.mark.parametrize("text", REFUSED)
def test_all_else_is_refused(text: str):
    assert scan(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'x')", {"query": "x"}),
        ("'x', 7)", {"query": "x", "days": 7}),
        ("'x', days=7)", {"query": "x", "days": 7}),
        ("days=7, query='x')", {"query": "x", "days": 7}),
        ("[1, 2])", {"query": [1, 2]}),
        ("None)", {"query": None}),
        ("'x', 7, 8)", None),
        ("'x', query='y')", None),
        ("days=7, 'x')", None),
    ],
)
def test_arguments_without_a_name(text: str, expected: Any):
    assert scan(text, ("query", "days")) == expected


LITERALS = st.lists(
    st.sampled_from(
        [
            *("a=", "b=", ",", "'", '"', "\\", "1", "-", ".5", "e2", "True", "None", "[", "]", "{"),
            *(
                "}",
                ":",
                " ",
                "\n",
                "x",
                "'k': ",
                "'x'",
                '"y"',
                "\\n",
                "\\x4",
                "\\u00e",
                "\\7",
                "诗",
            ),
            *("(", "#", "=", "a='x', ", "b=[1, ", "c={'k': "),
        ]
    ),
    max_size=12,
)


@examples(3000)
@given(LITERALS)
@example(["a=", "1", " ", "]"])
def test_what_is_accepted_means_what_it_means_to_python(pieces: list[str]):
    text = "".join(pieces) + ")"
    found = scan(text)
    if found is not None:
        assert evaluate(text) == found


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@examples(500)
@given(st.dictionaries(st.sampled_from(["a", "b_c", "诗"]), VALUES))
def test_what_is_written_is_read(arguments: dict[str, Any]):
    body = write_body(json.dumps(arguments, ensure_ascii=False))
    shown, calls = parse([f"get\n{body}"])
    assert shown == "" and json.loads(calls[0].arguments) == arguments
    assert evaluate(body.removeprefix("```python\ntool_call(").removesuffix("\n```")) == arguments


@pytest.mark.parametrize("text", ["[1]", "{bad", "x", "[" * 100_000])
def test_arguments_that_are_no_object_are_written_as_they_are(text: str):
    assert write_body(text) == text


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
        text = text[head.end() :].removeprefix("tool_call(")
        ends = (end for end in range(1, len(text) + 1) if text[end - 1] == ")")
        end = next((end for end in ends if scan(text[:end]) is not None), None)
        if end is None:
            return ()
        arguments = json.dumps(scan(text[:end]), ensure_ascii=False)
        calls.append(ToolCall(head["name"], arguments, f"call_{len(calls)}"))
        text = text[end:]
        if head["fence"] and text.strip():
            if not text.lstrip().startswith("```"):
                return ()
            text = text.lstrip().removeprefix("```")
        rest = text.lstrip()
        if rest and "\n" not in text[: len(text) - len(rest)]:
            return ()
        text = rest
    return tuple(calls)


PIECES = st.lists(
    st.sampled_from(
        [
            *(
                *NAMES,
                "\n",
                "tool_call(",
                ")",
                "a=1",
                ", ",
                "'",
                '"',
                "tool_call()",
                "```",
                " ",
                "\\",
            ),
            *("```python\n", "get\ntool_call(", "x", "b='y'", "[", "]", CALL, BARE, "\r", "("),
        ]
    ),
    max_size=12,
)


@examples(1000)
@given(PIECES)
def test_adversarial_texts_are_read_as_by_the_rules(pieces: list[str]):
    text = "".join(pieces)
    expected = find_calls(text)
    assert parse([text]) == expected
    assert parse(pieces) == expected
    assert parse(list(text)) == expected


@pytest.mark.parametrize("loop", [f"{BARE}\n", "get\ntool_call(\n", "get\ntool_call(a='\n"])
def test_a_loop_is_read_once(loop: str):
    looked = 0
    take = ArgumentScanner._take

    def count(scanner: ArgumentScanner, character: str) -> bool:
        nonlocal looked
        looked += 1
        return take(scanner, character)

    text = loop * 500 + "and more"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArgumentScanner, "_take", count)
        parser = ToolCallParser(PythonCalls(NAMES))
        shown = "".join(parser.add(character) for character in text)
        assert shown + parser.finish()[0] == text
    assert looked < 4 * len(text)
