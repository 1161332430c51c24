"""Texts of every dialect: calls at the end, and what only looks like a call, however it was cut."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from glm_runtime.text.dialects.all_tools import TURN, AllToolsCalls
from glm_runtime.text.dialects.bare_json import BareJsonCalls
from glm_runtime.text.dialects.dialect import CallDialect
from glm_runtime.text.dialects.name_line import NameLineCalls
from glm_runtime.text.dialects.python_call import PythonCalls
from glm_runtime.text.dialects.tagged import TaggedCalls
from glm_runtime.text.tool_calls import ToolCall, ToolCallParser

Cases = dict[str, tuple[str, tuple[ToolCall, ...]]]

NAMES = ("get_verse", "get", "查诗")
GET = ToolCall("get", "{}")
VERSE = ToolCall("get_verse", '{"reference": "Micah 6:8"}')

LINES_OBJECT = '{"reference": "Micah 6:8"}'
LINES_CALL = 'get_verse\n{"reference": "Micah 6:8"}'
LINES_CASES: Cases = {
    LINES_CALL: ("", (VERSE,)),
    "\n" + LINES_CALL: ("\n", (VERSE,)),
    "I look it up.\n" + LINES_CALL + "\n": ("I look it up.\n", (VERSE,)),
    LINES_CALL + "\n" + LINES_CALL: ("", (VERSE, replace(VERSE, id="call_1"))),
    LINES_CALL + "\n\n查诗\n{}": ("", (VERSE, ToolCall("查诗", "{}", "call_1"))),
    'get\n{"a": "}\\"{", "b": {"c": [1]}}': (
        "",
        (ToolCall("get", '{"a": "}\\"{", "b": {"c": [1]}}'),),
    ),
    'get\n{"a":\n 1}': ("", (ToolCall("get", '{"a":\n 1}'),)),
    # What GLM's own server accepts, too: it strips the name and the object.
    f"get_verse \n{LINES_OBJECT}": ("", (VERSE,)),
    f"  get_verse\t\n  {LINES_OBJECT}": ("", (VERSE,)),
    f"get_verse\r\n{LINES_OBJECT}\r\n": ("", (VERSE,)),
    f"get_verse\n\n \r\n{LINES_OBJECT}": ("", (VERSE,)),
    f"get_verse\n```json\n{LINES_OBJECT}\n```": ("", (VERSE,)),
    f"get_verse\n\n```\n{LINES_OBJECT}\n```\n\nget\r\n{{}}": (
        "",
        (VERSE, replace(GET, id="call_1")),
    ),
    f"get_verse\n``` json\n{LINES_OBJECT}": (f"get_verse\n``` json\n{LINES_OBJECT}", ()),
    f"See:\n get_verse\n```json\n{LINES_OBJECT}": ("See:\n", (VERSE,)),
    "get\n{bad\n" + LINES_CALL: ("get\n{bad\n", (VERSE,)),
}
LINES_TEXTS = [
    LINES_CALL + " is how you ask.",
    LINES_CALL + "\nThat is how you ask.",
    LINES_CALL + "查诗\n{}",
    "```\n" + LINES_CALL + "\n```",
    "```\n" + LINES_CALL,
    'Use get_verse\n{"reference": "x"}',
    f"get_verse\n```json\n{LINES_OBJECT}\n``` and",
    f"get_verse\n```json\n{LINES_OBJECT}\nand\n```",
    f"get_verse\n```c++\n{LINES_OBJECT}\n```",
    f"get_verse\n```\n```\n{LINES_OBJECT}\n```",
    f"get_verse {LINES_OBJECT}",
    f"get_verse\r{LINES_OBJECT}",
    'get_verses\n{"reference": "x"}',
    "get_verse\n[1]",
    'get_verse\n{"a": NaN}',
    "get_verse\n{'reference': 'x'}",
    'get_verse\n{"reference": "x"',
    'get_verse\n{"reference": "x\n"}',
    'get_verse\n{"reference": "}',
    'get_verse\n{"reference": {}',
    'get_verse\n{"reference": {"a": 1}\nget_verse\n{"reference": {}',
    "get_verse",
    "get_verse\n",
    "get_",
    "",
]

TAGS_CALL = (
    "<tool_call>get_verse\n<arg_key>reference</arg_key>\n<arg_value>Micah 6:8</arg_value>\n"
    "</tool_call>"
)
TAGS_BARE = "<tool_call>get</tool_call>"
TAGS_CASES: Cases = {
    TAGS_BARE: ("", (GET,)),
    TAGS_CALL: ("", (VERSE,)),
    f"I look.\n{TAGS_CALL}\n": ("I look.\n", (VERSE,)),
    f"I look.{TAGS_BARE}{TAGS_BARE}": ("I look.", (GET, replace(GET, id="call_1"))),
    f"{TAGS_BARE}\n{TAGS_CALL}": ("", (GET, replace(VERSE, id="call_1"))),
    "<tool_call>\nget\n</tool_call>": ("", (GET,)),
    f"<tool_call>{TAGS_BARE}": ("<tool_call>", (GET,)),
    f"```\n{TAGS_BARE}\n```\n{TAGS_BARE}": (f"```\n{TAGS_BARE}\n```\n", (GET,)),
}
TAGS_TEXTS = [
    f"{TAGS_BARE} is how you call.",
    f"{TAGS_BARE}\nThat is how you call.",
    f"Write `{TAGS_BARE}`",
    f"```\n{TAGS_BARE}\n```",
    f"```xml\n{TAGS_CALL}",
    f"``` {TAGS_BARE}",
    "<tool_call>get_verses</tool_call>",
    "<tool_call>other</tool_call>",
    "<tool_call>get</tool_call",
    "<tool_call>get",
    "<tool_call>get and more</tool_call>",
    "<tool_call>get\n<arg_key>a</arg_key></tool_call>",
    "<tool_call>get\n<arg_key></arg_key><arg_value>1</arg_value></tool_call>",
    "<tool_call>get\n<arg_key>a\nb</arg_key><arg_value>1</arg_value></tool_call>",
    "<tool_call>get\n<arg_key>a</arg_key>x<arg_value>1</arg_value></tool_call>",
    "<tool_call>get\n<arg_key>a</arg_key><arg_value>1</tool_call>",
    '<tool_call>{"name": "get", "arguments": {}}</tool_call>',
    "<tool_ca",
    "a < b <",
    "",
]

BARE_CALL = '{"name": "search", "arguments": {"query": "诗"}}'
BARE_FINISH = '{"name": "finish", "arguments": {}}'
BARE_CASES: Cases = {
    BARE_CALL: ("", (ToolCall("search", '{"query": "诗"}'),)),
    f"I look.\n {BARE_FINISH}\n": ("I look.\n", (ToolCall("finish", "{}"),)),
    f"{BARE_CALL}\n{BARE_FINISH}": (
        "",
        (ToolCall("search", '{"query": "诗"}'), ToolCall("finish", "{}", "call_1")),
    ),
    '{\n "name" :"finish",\n "arguments": {"a": {}}\n}': ("", (ToolCall("finish", '{"a": {}}'),)),
    f'{{"name": "finish", "arguments": {{}}]\n{BARE_FINISH}': (
        '{"name": "finish", "arguments": {}]\n',
        (ToolCall("finish", "{}"),),
    ),
    '{"name": "a \\"b\\"", "arguments": {}}': ("", (ToolCall('a "b"', "{}"),)),
}
BARE_TEXTS = [
    f"{BARE_CALL} is how.",
    f"{BARE_CALL}\nThat is how.",
    f"Use {BARE_CALL}",
    f"```json\n{BARE_CALL}\n```",
    '{"name": "other", "arguments": {}}',
    '{"arguments": {}, "name": "finish"}',
    '{"name": "finish"}',
    '{"name": "finish", "arguments": "{}"}',
    '{"name": "finish", "arguments": {}, "id": 1}',
    '{"name": "finish", "arguments": {}',
    '{"name": "finish", "arguments": {"a": NaN}}',
    "finish\n{}",
    '{"na',
    "{",
]

PYTHON_ARGUMENTS = '{"reference": "Micah 6:8", "count": 2}'
PYTHON_CALL = "get_verse\n ```python\ntool_call(reference='Micah 6:8', count=2)\n```"
PYTHON_BARE = "get\ntool_call()"
PYTHON_CASES: Cases = {
    PYTHON_CALL: ("", (ToolCall("get_verse", PYTHON_ARGUMENTS),)),
    PYTHON_BARE: ("", (GET,)),
    f"So:\n{PYTHON_BARE}\n{PYTHON_CALL}": (
        "So:\n",
        (GET, ToolCall("get_verse", PYTHON_ARGUMENTS, "call_1")),
    ),
}
PYTHON_TEXTS = [
    f"{PYTHON_CALL} is how.",
    f"{PYTHON_BARE}\nThat is how.",
    f"Use {PYTHON_BARE}",
    f"```\n{PYTHON_BARE}\n```",
    "get tool_call()",
    "other\ntool_call()",
    "get\ntool_call(a=b)",
    "get\ntool_call('x')",
    "get\ntool_call(a=__import__('os').system('x'))",
    "get\ntool_calls()",
    "get\ntool_call (",
    'get\n{"a": 1}',
    "get\ntool_call(a='x'",
    "get\n```python\nx = 1\ntool_call()\n```",
]

TOOLS_PYTHON = "python\nprint(6 * 7)\n"
TOOLS_BROWSER = 'simple_browser\nsearch("GLM-4", recency_days=7)'
TOOLS_CODE = ToolCall("python", '{"code": "print(6 * 7)\\n"}')
TOOLS_SEARCH = ToolCall(
    "simple_browser", '{"action": "search", "query": "GLM-4", "recency_days": 7}'
)
TOOLS_CASES: Cases = {
    TOOLS_PYTHON: ("", (TOOLS_CODE,)),
    " python \r\nx": ("", (ToolCall("python", '{"code": "x"}'),)),
    f"I compute.{TURN}{TOOLS_PYTHON}": ("I compute.", (TOOLS_CODE,)),
    f"I compute.\n{TURN}{TOOLS_PYTHON}{TURN}\n": ("I compute.\n", (TOOLS_CODE,)),
    TOOLS_BROWSER: ("", (TOOLS_SEARCH,)),
    f"I look.\n{TOOLS_BROWSER}": ("I look.\n", (TOOLS_SEARCH,)),
    "simple_browser\nmclick([0, 1, 5])": (
        "",
        (ToolCall("simple_browser", '{"action": "mclick", "ids": [0, 1, 5]}'),),
    ),
    "simple_browser\n```python\nopen_url('https://a.b/(c)')\n```": (
        "",
        (ToolCall("simple_browser", '{"action": "open_url", "url": "https://a.b/(c)"}'),),
    ),
    'cogview\nA "cat"\non the moon.': (
        "",
        (ToolCall("cogview", '{"prompt": "A \\"cat\\"\\non the moon."}'),),
    ),
    f"So:\nget\n{{}}{TURN}cogview\nx": (
        "So:\n",
        (GET, ToolCall("cogview", '{"prompt": "x"}', "call_1")),
    ),
    f"```\nx{TURN}{TOOLS_PYTHON}": ("```\nx", (TOOLS_CODE,)),
}
TOOLS_TEXTS = [
    f"You can use\n{TOOLS_PYTHON}",
    "python is a language.",
    "pythons\nx",
    "python",
    "python\n",
    "python\n \n",
    f"python\n{TURN}x",
    f"{TOOLS_PYTHON}{TURN}\nThat is how.",
    "```python\nprint(1)\n```",
    f"{TOOLS_BROWSER} is how.",
    f"```\n{TOOLS_BROWSER}\n```",
    "simple_browser\nlook('x')",
    "simple_browser\nsearch(x)",
    "simple_browser\nsearch('x', action='y')",
    "simple_browser\nsearch('x'",
    "The cat【3†source】 sat.",
]

DIALECTS: dict[str, tuple[CallDialect, Cases, list[str]]] = {
    "name line": (NameLineCalls(NAMES), LINES_CASES, LINES_TEXTS),
    "tags": (TaggedCalls(dict.fromkeys(NAMES)), TAGS_CASES, TAGS_TEXTS),
    "bare JSON": (BareJsonCalls(("search", "finish", 'a "b"')), BARE_CASES, BARE_TEXTS),
    "Python": (PythonCalls(NAMES), PYTHON_CASES, PYTHON_TEXTS),
    "all tools": (
        AllToolsCalls(("get", "python_path"), ("python", "simple_browser", "cogview")),
        TOOLS_CASES,
        TOOLS_TEXTS,
    ),
}


def parse(dialect: CallDialect, parts: Sequence[str]) -> tuple[str, tuple[ToolCall, ...]]:
    parser = ToolCallParser(dialect)
    shown = "".join(parser.add(part) for part in parts)
    rest, calls = parser.finish()
    return shown + rest, calls


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, (_, cases, _) in DIALECTS.items() for text in cases]
)
def test_calls_at_the_end_are_calls(name: str, text: str):
    dialect, cases, _ = DIALECTS[name]
    assert parse(dialect, [text]) == parse(dialect, list(text)) == cases[text]


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, (*_, texts) in DIALECTS.items() for text in texts]
)
def test_what_only_looks_like_a_call_stays_text(name: str, text: str):
    dialect = DIALECTS[name][0]
    expected = text.replace(TURN, "\n"), ()
    assert parse(dialect, [text]) == parse(dialect, list(text)) == expected
