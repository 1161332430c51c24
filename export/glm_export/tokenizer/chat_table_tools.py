"""The parts of a chat table for tools: the block that describes them, and calls in the history.

Both are derived from renderings of one or two tools and calls, as the rest of the table is.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glm_runtime.text.chat_messages import Message, Tool

# Renders messages with tools, without a generation prompt; `None` if the template refuses them.
Renderer = Callable[[Sequence[Message], Sequence[Tool]], str | None]

# Digits, which no template contains.
_NAMES = ("5203617480911", "5203617480912")
_KEYS, _VALUES = ("5203617480921", "5203617480922"), ("5203617480931", "5203617480932")
_QUESTION = {"role": "user", "content": "5203617480941"}


@dataclass(frozen=True)
class ToolsRule:
    """The block of tools, which stands after `start` and before the rest of the prompt.

    Attributes:
        start: text with which every prompt begins.
        before: text before the first tool.
        name_end: text after a tool's name and before its JSON; None if only JSON is written.
        between: text between two tools.
        after: text after the last tool.
        value: "tool" if the whole tool is written as JSON, "function" for its inner object.
        indent: number of spaces of an indentation of the JSON; None for one line.
    """

    start: str
    before: str
    name_end: str | None
    between: str
    after: str
    value: str
    indent: int | None

    def insert(self, text: str, tools: Sequence[Tool]) -> str | None:
        """Insert the block into a prompt; None if the prompt has another start."""
        if not text.startswith(self.start):
            return None
        block = self.between.join(map(self._write, tools))
        return self.start + self.before + block + self.after + text.removeprefix(self.start)

    def _write(self, tool: Tool) -> str:
        function = tool.get("function", tool)
        assert isinstance(function, Mapping)
        name = "" if self.name_end is None else str(function["name"]) + self.name_end
        return name + write_json(tool if self.value == "tool" else function, self.indent)


@dataclass(frozen=True)
class CallsRule:
    """How calls of earlier answers are written.

    Attributes:
        is_message: True if each call is a message of its own; then calls follow the content's
            message. Otherwise they stand after the content, within its message.
        first: text before the name of a call that is the conversation's first message.
        prefix: text before the name of any other call.
        name_end: text between the name and the arguments.
        middle: text between a key and its value; None if the arguments are one JSON object.
        between: text between a value and the next key.
        suffix: text after the arguments.
        empty: text after the name of a call without arguments, if they are not one JSON object.
    """

    is_message: bool
    first: str | None
    prefix: str
    name_end: str
    middle: str | None
    between: str
    suffix: str
    empty: str

    def write(self, call: Mapping[str, Any], *, is_first: bool) -> str | None:
        """Write one call; None if it cannot be the first message."""
        function = call.get("function", call)
        before = self.first if is_first and self.is_message else self.prefix
        if before is None:
            return None
        given = function.get("arguments", {})
        if self.middle is None:
            text = given if isinstance(given, str) else write_json(given, None)
            return before + str(function["name"]) + self.name_end + text + self.suffix
        arguments = json.loads(given) if isinstance(given, str) else given
        if not arguments:
            return before + str(function["name"]) + self.empty
        pairs = (f"{key}{self.middle}{_write_value(value)}" for key, value in arguments.items())
        return (
            before + str(function["name"]) + self.name_end + self.between.join(pairs) + self.suffix
        )


def write_json(value: object, indent: int | None) -> str:
    """Write JSON as templates do."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def guess_tools(render: Renderer) -> ToolsRule | None:
    """Derive the block of tools; None if the template writes none, or writes them otherwise."""
    tools = [_make_tool(name) for name in _NAMES]
    plain, one, two = (render([_QUESTION], tools[:count]) for count in range(3))
    if plain is None or one is None or two is None:
        return None
    for value, indent in itertools.product(("tool", "function"), (None, 4, 2)):
        texts = [write_json(t if value == "tool" else t["function"], indent) for t in tools]
        if one.count(texts[0]) != 1 or any(two.count(text) != 1 for text in texts):
            continue
        before, after = one.split(texts[0])
        between = two.removeprefix(before + texts[0]).removesuffix(texts[1] + after)
        if two != before + texts[0] + between + texts[1] + after:
            continue
        return _divide_block(plain, before, between, after, (value, indent))
    return None


def _divide_block(
    plain: str, before: str, between: str, after: str, form: tuple[str, int | None]
) -> ToolsRule | None:
    name_end = None
    if before.count(_NAMES[0]) == 1 and between.count(_NAMES[1]) == 1:
        before, name_end = before.split(_NAMES[0])
        between, other = between.split(_NAMES[1])
        if other != name_end:
            return None
    # The shortest start: its end may also be the beginning of what follows the block.
    for length in range(len(plain) + 1):
        start, rest = plain[:length], plain[length:]
        if before.startswith(start) and after.endswith(rest):
            block = before.removeprefix(start)
            return ToolsRule(start, block, name_end, between, after.removesuffix(rest), *form)
    return None


def guess_calls(render: Renderer, *, is_message: bool) -> CallsRule | None:
    """Derive how calls are written; None if no rule gives the template's text."""
    asked = render([_QUESTION], ())
    silent = render([_QUESTION, _make_answer()], ())
    called = [render([_QUESTION, _make_answer(count)], ()) for count in range(3)]
    alone = render([_make_answer(1)], ())
    if asked is None or any(text is None for text in called):
        return None
    empty, one, two = map(str, called)
    start = asked if is_message or silent is None else silent
    if not all(text.startswith(start) for text in (empty, one, two)):
        return None
    parts = [text.removeprefix(start) for text in (empty, one, two)]
    if any(part.count(_NAMES[0]) != 1 for part in parts):
        return None
    prefix, rest = parts[1].split(_NAMES[0])
    first = None
    if is_message and alone is not None and alone.endswith(_NAMES[0] + rest):
        first = alone.removesuffix(_NAMES[0] + rest)
    text = write_json({_KEYS[0]: _VALUES[0]}, None)
    if rest.count(text) == 1:
        name_end, suffix = rest.split(text)
        return CallsRule(is_message, first, prefix, name_end, None, "", suffix, "")
    rests = [part.partition(_NAMES[0])[2] for part in parts]
    return _divide_pairs(CallsRule(is_message, first, prefix, "", None, "", "", rests[0]), rests)


def _divide_pairs(rule: CallsRule, rests: Sequence[str]) -> CallsRule | None:
    marks = (_KEYS[0], _VALUES[0], _KEYS[1], _VALUES[1])
    if any(rests[2].count(mark) != 1 for mark in marks):
        return None
    parts, text = [], rests[2]
    for mark in marks:
        before, _, text = text.partition(mark)
        parts.append(before)
    if parts[1] != parts[3]:
        return None
    return CallsRule(
        rule.is_message,
        rule.first,
        rule.prefix,
        parts[0],
        parts[1],
        parts[2],
        text,
        rule.empty,
    )


def _make_tool(name: str) -> dict[str, Any]:
    properties = {"a": {"type": "integer"}}
    parameters = {"type": "object", "properties": properties}
    function = {"name": name, "description": f"d{name}", "parameters": parameters}
    return {"type": "function", "function": function}


def _make_answer(count: int | None = None) -> dict[str, Any]:
    """Return an answer without text, with one call of `count` arguments; `None` for no call."""
    answer: dict[str, Any] = {"role": "assistant", "content": ""}
    if count is None:
        return answer
    arguments = dict(zip(_KEYS[:count], _VALUES, strict=False))
    function = {"name": _NAMES[0], "arguments": arguments}
    return {**answer, "tool_calls": [{"id": "call_0", "type": "function", "function": function}]}


def _write_value(value: object) -> str:
    return value if isinstance(value, str) else write_json(value, None)
