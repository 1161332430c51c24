"""The part of a chat table for calls of earlier answers and their results.

It is derived from renderings of one call, as the rest of the table is.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glm_export.tokenizer.chat_table_tools import QUESTION, Renderer, write_json
from glm_runtime.text.chat_messages import Message
from glm_runtime.text.dialects import all_tools, python_call
from glm_runtime.text.tool_names import read_tool_name

# Digits, which no template contains.
_NAME = "5203617480911"
_KEYS, _VALUES = ("5203617480921", "5203617480922"), ("5203617480931", "5203617480932")


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
        is_python: True if the arguments are written as a call of ChatGLM3.
    """

    is_message: bool
    first: str | None
    prefix: str
    name_end: str
    middle: str | None
    between: str
    suffix: str
    empty: str
    is_python: bool = False

    def write(
        self, call: Mapping[str, Any], *, is_first: bool, built_in: Collection[str] = ()
    ) -> str | None:
        """Write one call; None if it cannot be the first message."""
        function = call.get("function", call)
        before = self.first if is_first and self.is_message else self.prefix
        if before is None:
            return None
        given = function.get("arguments", {})
        if self.middle is None:
            text = self.write_arguments(call, built_in)
            return before + str(function["name"]) + self.name_end + text + self.suffix
        arguments = json.loads(given) if isinstance(given, str) else given
        if not arguments:
            return before + str(function["name"]) + self.empty
        pairs = (f"{key}{self.middle}{_write_value(value)}" for key, value in arguments.items())
        return (
            before + str(function["name"]) + self.name_end + self.between.join(pairs) + self.suffix
        )

    def write_arguments(self, call: Mapping[str, Any], built_in: Collection[str]) -> str:
        """Write the arguments of a call whose rule has no text between keys and values.

        Args:
            call: the call, in OpenAI's format.
            built_in: names of built-in tools, whose calls have a form of their own.
        """
        function = call.get("function", call)
        given = function.get("arguments", {})
        text = given if isinstance(given, str) else write_json(given, None)
        if self.is_python:
            return python_call.write_body(text)
        name = str(function["name"])
        return all_tools.write_body(name, text) if name in built_in else text

    def to_json(self) -> dict[str, object]:
        """Return the rule as JSON, without `is_python`, which the table's key tells."""
        found = dict(vars(self))
        del found["is_python"]
        return found


def guess_calls(render: Renderer, *, is_message: bool) -> CallsRule | None:
    """Derive how calls are written; None if no rule gives the template's text."""
    asked = render([QUESTION], ())
    silent = render([QUESTION, _make_answer()], ())
    called = [render([QUESTION, _make_answer(count)], ()) for count in range(3)]
    alone = render([_make_answer(1)], ())
    if asked is None or any(text is None for text in called):
        return None
    empty, one, two = map(str, called)
    start = asked if is_message or silent is None else silent
    if not all(text.startswith(start) for text in (empty, one, two)):
        return None
    parts = [text.removeprefix(start) for text in (empty, one, two)]
    if any(part.count(_NAME) != 1 for part in parts):
        return None
    prefix, rest = parts[1].split(_NAME)
    first = None
    if is_message and alone is not None and alone.endswith(_NAME + rest):
        first = alone.removesuffix(_NAME + rest)
    text = write_json({_KEYS[0]: _VALUES[0]}, None)
    if rest.count(text) == 1:
        name_end, suffix = rest.split(text)
        return CallsRule(is_message, first, prefix, name_end, None, "", suffix, "")
    python = python_call.write_body(text)
    if is_message and rest.count(python) == 1:
        name_end, suffix = rest.split(python)
        return CallsRule(is_message, first, prefix, name_end, None, "", suffix, "", is_python=True)
    rests = [part.partition(_NAME)[2] for part in parts]
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


def _make_answer(count: int | None = None) -> dict[str, Any]:
    """Return an answer without text, with one call of `count` arguments; `None` for no call."""
    answer: dict[str, Any] = {"role": "assistant", "content": ""}
    if count is None:
        return answer
    arguments = dict(zip(_KEYS[:count], _VALUES, strict=False))
    function = {"name": _NAME, "arguments": arguments}
    return {**answer, "tool_calls": [{"id": "call_0", "type": "function", "function": function}]}


def _write_value(value: object) -> str:
    return value if isinstance(value, str) else write_json(value, None)


def name_results(messages: Sequence[Message], built_in: Collection[str]) -> list[Message]:
    """Add the metadata of built-in tools to their results, which follow their calls in order."""
    waiting: list[str] = []
    named: list[Message] = []
    for message in messages:
        is_result = message["role"] == "tool" and bool(waiting)
        name = waiting.pop(0) if is_result else ""
        metadata = all_tools.RESULTS.get(name) if name in built_in else None
        named.append({"metadata": metadata, **message} if metadata else message)
        waiting += [read_tool_name(call) for call in list_calls(message)]
    return named


def part_calls(message: Message) -> list[Message]:
    """Return the message of the content, if there is any, and one message for each call."""
    calls = list_calls(message)
    if not calls:
        return [message]
    parts: list[Message] = [
        {"role": "assistant", "content": "", "tool_calls": [call]} for call in calls
    ]
    content = message.get("content")
    return [{"role": "assistant", "content": content}, *parts] if content else parts


def list_calls(message: Message) -> list[Mapping[str, Any]]:
    """Return the calls of a message."""
    calls = message.get("tool_calls") or ()
    assert isinstance(calls, list | tuple)
    return list(calls)
