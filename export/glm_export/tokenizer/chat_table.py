"""`chat_table.json`: prefix and suffix of each role's messages, for hosts without Jinja.

`chat_table_guess.py` derives the table from a few renderings of the checkpoint's chat template, and
`chat_table_jinja.py` writes it as a simple template without tools. `chat_table_tools.py` has the
rules of tools and calls.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType

from glm_export.tokenizer.chat_table_tools import CallsRule, ToolsRule
from glm_runtime.text.chat_messages import Message, Tool
from glm_runtime.text.chat_template import TABLE_NAME

FILE_NAME = TABLE_NAME
# Version 1 has the first four keys of a role alone; a table without other keys is still written so.
FORMAT_NAME, FORMAT_VERSION = "glm-chat-table", 2
# Features that a table does not support; hosts are told about them.
TOOLS_NOT_EXPRESSED = "tools and tool calls"
NOT_EXPRESSED = (
    "metadata of a message",
    "contents in parts, as for images",
    "templates whose text depends on a date or a count of rounds",
)
OPENING, CLOSING = "<think>", "</think>"
_FIRST_KEYS = ("first", "prefix", "suffix", "content")


def _take_answer(content: str) -> str:
    return content.rsplit(CLOSING, maxsplit=1)[-1].strip()


# Changes that a template may make to a message's content, by their names in the table.
CHANGES: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {"as_is": str, "strip": str.strip, "answer": _take_answer}
)


@dataclass(frozen=True)
class Thoughts:
    """How the reasoning of a message is written, between its prefix and its content.

    Attributes:
        opening: text before the reasoning of a message that follows the last user's message.
        closing: text after this reasoning.
        empty: text in place of the reasoning of all other messages.
    """

    opening: str
    closing: str
    empty: str


@dataclass(frozen=True)
class RoleRule:
    """How the messages of a role are written.

    Attributes:
        first: prefix of the conversation's first message; None if the role cannot be first.
        prefix: prefix of a later message; None if the role can only be first.
        suffix: text after each message.
        content: change made to the content, a key of `CHANGES`.
        repeated: prefix after a message of the same role; None if it is `prefix`.
        skips_empty: True if a message without content is left out.
        lead: text before a content that is not empty after its change.
        no_thinking: text after the content if reasoning is turned off, unless the content ends so.
        thoughts: how reasoning in the content is written; None if the template has no such part.
    """

    first: str | None
    prefix: str | None
    suffix: str
    content: str
    repeated: str | None = None
    skips_empty: bool = False
    lead: str = ""
    no_thinking: str = ""
    thoughts: Thoughts | None = None

    @property
    def start(self) -> str:
        """Text that starts a conversation whose first message is left out."""
        return (self.first or "").removesuffix(self.prefix or "")

    def to_json(self) -> dict[str, object]:
        """Return the rule as JSON, without the keys that have their defaults."""
        found: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _FIRST_KEYS or value != field.default:
                found[field.name] = vars(value) if isinstance(value, Thoughts) else value
        return found


@dataclass(frozen=True)
class _Place:
    """Where a message stands."""

    is_first: bool
    is_repeated: bool
    is_after_last_user: bool
    is_thinking_off: bool


@dataclass(frozen=True)
class ChatTable:
    """A chat template as a table.

    Attributes:
        roles: rule of each supported role.
        generation_prompt: text that starts the answer, by thinking mode.
        is_system_first: True if system messages are written before all others.
        tools: block of tools; None if the table has no rule for them.
        calls: how calls are written; None if the table has no rule for them.
    """

    roles: Mapping[str, RoleRule]
    generation_prompt: Mapping[str, str]
    is_system_first: bool
    tools: ToolsRule | None = None
    calls: CallsRule | None = None

    def render(
        self, messages: Sequence[Message], thinking: str = "default", tools: Sequence[Tool] = ()
    ) -> str | None:
        """Render the prompt as a host does; return None if something has no rule."""
        text = self._render_messages(messages, thinking)
        if text is None or not tools:
            return text
        return None if self.tools is None else self.tools.insert(text, tools)

    def _render_messages(self, messages: Sequence[Message], thinking: str) -> str | None:
        if self.is_system_first:
            messages = sorted(messages, key=lambda message: message["role"] != "system")
        if self.calls is not None and self.calls.is_message:
            messages = [part for message in messages for part in _part_calls(message)]
        roles = [str(message["role"]) for message in messages]
        parts = []
        for index, message in enumerate(messages):
            place = _Place(
                is_first=index == 0,
                is_repeated=index > 0 and roles[index - 1] == roles[index],
                is_after_last_user="user" not in roles[index:],
                is_thinking_off=thinking == "not_thinking",
            )
            text = self._write(message, place)
            if text is None:
                return None
            parts.append(text)
        return "".join(parts) + self.generation_prompt[thinking]

    def _write(self, message: Message, place: _Place) -> str | None:
        calls = message.get("tool_calls") or ()
        rule = self.roles.get(str(message["role"]))
        if rule is None or (calls and self.calls is None):
            return None
        assert isinstance(calls, list | tuple)
        written = [self.calls.write(call, is_first=place.is_first) for call in calls if self.calls]
        if None in written:
            return None
        called = "".join(map(str, written))
        if called and self.calls is not None and self.calls.is_message:
            return called
        text = _write_message(rule, str(message["content"]), place)
        return None if text is None else text.removesuffix(rule.suffix) + called + rule.suffix

    def to_json(self, jinja: str) -> bytes:
        """Return the file's content, with the table as Jinja; equal tables give equal bytes."""
        roles = {name: rule.to_json() for name, rule in self.roles.items()}
        is_simple = all(set(rule) == set(_FIRST_KEYS) for rule in roles.values())
        content = {
            "format": FORMAT_NAME,
            "format_version": 1 if is_simple else FORMAT_VERSION,
            "system_first": self.is_system_first,
            "roles": roles,
            "generation_prompt": dict(self.generation_prompt),
            "not_expressed": NOT_EXPRESSED,
            "jinja": jinja,
        }
        if self.tools is None or self.calls is None:
            content["not_expressed"] = (TOOLS_NOT_EXPRESSED, *NOT_EXPRESSED)
        content |= {} if self.tools is None else {"tools": vars(self.tools)}
        content |= {} if self.calls is None else {"calls": vars(self.calls)}
        return (json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()


def _part_calls(message: Message) -> list[Message]:
    """Return the message of the content, if there is any, and one message for each call."""
    calls = message.get("tool_calls") or ()
    if not calls:
        return [message]
    assert isinstance(calls, list | tuple)
    parts: list[Message] = [
        {"role": "assistant", "content": "", "tool_calls": [call]} for call in calls
    ]
    content = message.get("content")
    return [{"role": "assistant", "content": content}, *parts] if content else parts


def _write_message(rule: RoleRule, content: str, place: _Place) -> str | None:
    before = rule.first if place.is_first else rule.prefix
    if before is None:
        return None
    if rule.skips_empty and not content:
        return rule.start if place.is_first else ""
    if place.is_repeated and rule.repeated is not None:
        before = rule.repeated
    shown = CHANGES[rule.content](content)
    off = rule.no_thinking if place.is_thinking_off else ""
    return (
        before
        + _write_thoughts(rule.thoughts, content, place)
        + (rule.lead if shown else "")
        + shown
        + ("" if shown.endswith(off) else off)
        + rule.suffix
    )


def _write_thoughts(thoughts: Thoughts | None, content: str, place: _Place) -> str:
    if thoughts is None:
        return ""
    before, closing, _ = content.partition(CLOSING)
    reasoning = before.rsplit(OPENING, maxsplit=1)[-1].strip() if closing else ""
    if not place.is_after_last_user or not reasoning:
        return thoughts.empty
    return thoughts.opening + reasoning + thoughts.closing
