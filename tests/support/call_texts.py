"""Templates of every dialect of tool calls, with complete calls and pieces of adversarial texts."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from glm_runtime import ChatOptions
from glm_runtime.text.chat_template import ChatTemplate
from glm_runtime.text.dialects.all_tools import TURN
from glm_runtime.text.dialects.dialect import CallDialect
from glm_runtime.text.tool_calls import ToolCallParser
from support.chat_templates import (
    LIKE_0414,
    OWN_SYSTEM,
    READS_CALLS,
    SETS_TOOLS,
    SOP_WITHOUT_BRACKETS,
)

_PROPERTIES = {
    "at": {"type": "string"},
    "n": {"type": "integer"},
    "maybe": {"anyOf": [{"type": "null"}, {"type": "string"}]},
    "kind": {"enum": ["1", "2"]},
    "either": {"type": ["string", "integer"]},
    "other": {"$ref": "#/properties/n"},
    "endless": {"$ref": "#/properties/endless"},
}
_VERSE = {"name": "get_verse", "parameters": {"type": "object", "properties": _PROPERTIES}}
FUNCTIONS: tuple[dict[str, Any], ...] = ({"name": "get"}, _VERSE, {"name": "查诗"})


@dataclass(frozen=True)
class DialectTexts:
    """One dialect.

    Attributes:
        source: a template whose answers have it.
        calls: complete calls; an answer of some text and then these has the same calls, eager or
            not.
        pieces: pieces of texts that look like calls.
        wrong: texts that are nearly complete calls.
        tools: tools of the conversation.
        between: what stands between two calls.
    """

    source: str
    calls: tuple[str, ...]
    pieces: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = FUNCTIONS
    between: str = "\n"

    @cached_property  # choosing it renders the template
    def dialect(self) -> CallDialect:
        found = ChatTemplate(self.source).choose_dialect(ChatOptions(self.tools))
        assert found is not None
        return found

    def draw(self, generator: random.Random) -> str:
        """A text of pieces and calls, of which about a third ends with a call."""
        common = ("\n", "\r\n", "\x1c", "\ufeff", " and", "```", "```json\n")  # \ufeff is no blank
        choice = (*self.pieces, *self.pieces, *self.calls, *self.wrong, *common)
        text = "".join(generator.choices(choice, k=generator.randrange(1, 10)))
        last = generator.choice((*self.calls, *self.wrong))
        return generator.choice((text, text, text + self.between + last, last))


_TAGGED = "<tool_call>get_verse\n<arg_key>%s</arg_key>\n<arg_value>%s</arg_value>\n</tool_call>"
DIALECTS = {
    "lines": DialectTexts(
        LIKE_0414,
        (
            *("get\n{}", 'get_verse\n{"at": "x"}', ' 查诗 \r\n\n```json\n{"a": [1, {}]}\n```'),
            *("get\n```éß诗\n{}\n```", 'get\n{"a": "\\ud83d"}'),  # any letters; half a pair
        ),
        ("get", "get\n", "查诗\n", '{"a', '": ', "{", "}", '"', "\\", "1", "E", "[", "true", ","),
        ("get\n```é1\n{}\n```", "get\n```ｊs on\n{}\n```", "get\n```１\n{}\n```"),
    ),
    "tags": DialectTexts(
        READS_CALLS,
        (
            "<tool_call>get</tool_call>",
            "<tool_call>查诗<arg_key>诗</arg_key><arg_value>[1]</arg_value></tool_call>",
            _TAGGED % ("at", "\n1<"),
            _TAGGED % ("n", " 12\n"),
            _TAGGED % ("maybe", "12"),
            _TAGGED % ("maybe", "null"),
            _TAGGED % ("kind", "1"),
            _TAGGED % ("either", "1"),
            _TAGGED % ("other", "{}"),
            _TAGGED % ("endless", '"q"'),
        ),
        (
            *("<tool_call>get", "<tool_call>get_verse", "<arg_key>", "at</arg_key>", "n</arg_key>"),
            *("<arg_value>", "</arg_value>", "</tool_call>", "<", "1", '"', "true", "<tool_call>"),
        ),
        (_TAGGED % ("a\nb", "1"), _TAGGED % (" ", "1"), _TAGGED % ("a<", "1")),
    ),
    "bare": DialectTexts(
        OWN_SYSTEM,
        (
            '{"name": "get", "arguments": {}}',
            ' {"name": "search",\n "arguments": {"at": "诗"} }',
        ),
        ('{"name": ', '"get"', '"查诗"', ', "arguments": ', '{"a": ', "}", "1", "{", " ", "}}"),
        ('{"name": "get", "arguments": {}]', '{"name": "gut", "arguments": {}}'),
    ),
    "python": DialectTexts(
        SOP_WITHOUT_BRACKETS,
        (
            "get\ntool_call()",
            "get_verse\n```\ntool_call(a='x', b=[1, {'k': None}],)\n```",
            "get\ntool_call(a='\\n\\x41\\u8bd7\\U0001F600\\101\\0\\d\\\n', b=\"it's\", 诗=-1.5e3)",
            "get\ntool_call(\n  a=True,\n  b='\t'\n)",
        ),
        (
            *("get\ntool_call(", "a=", "b =", "1", ", ", "'", '"'),
            *("\\", ")", "x", "[", "]", "{", "}"),
            *(":", "tool_call(", "True", "\\u12", "\\7", "-", ".5", "'k': ", "诗"),
        ),
        (
            "get\ntool_call(a=1, a=2)",
            "get\ntool_call('x')",
            "get\ntool_call(a='\\U00110000')",
            "get\ntool_call(a='\\ud83d')",
        ),
    ),
    "tools": DialectTexts(
        SETS_TOOLS,
        (
            "get\n{}",
            "simple_browser\nmclick([1, 2])",
            "python\nprint('x')\n\n",
            'cogview\nA "cat".',
            'simple_browser\n```\nsearch("x", 7)\n```',
            "simple_browser\nsearch(recency_days=7, query='it\\'s')",
        ),
        (
            *(TURN, TURN, "python\n", "python"),
            *("cogview\n", "get\n{", '"', "}", "simple_browser\n"),
            *("search(", "open_url(", "'x'", ")", "7", "action=", ", ", 'get\n{"a": "'),
        ),
        ("python\n \n", f"python\n{TURN}", "simple_browser\nsearch('x', query='y')"),
        ({"name": "get"}, {"type": "python"}, {"type": "simple_browser"}, {"type": "cogview"}),
        TURN,
    ),
}


def list_readings(name: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Random texts of a dialect, as Python's parser reads them."""
    texts, generator = DIALECTS[name], random.Random(seed)
    dialect = texts.dialect
    for _ in range(count):
        text = texts.draw(generator)
        parser = ToolCallParser(dialect)
        shown = parser.add(text)
        rest, calls = parser.finish()
        said = [{"name": call.name, "arguments": call.arguments} for call in calls]
        yield {"text": text, "shown": shown + rest, "calls": said}
