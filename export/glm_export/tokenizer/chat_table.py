"""`chat_table.json`: prefix and suffix of each role's messages, for hosts without Jinja.

`chat_table_guess.py` derives the table from a few renderings of the checkpoint's chat template, and
`chat_table_jinja.py` writes it as a simple template without tools. `chat_table_tools.py` and
`chat_table_calls.py` have the rules of tools and calls.
"""

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

from glm_export.tokenizer.chat_table_calls import (
    CallsRule,
    list_calls,
    name_results,
    part_calls,
)
from glm_export.tokenizer.chat_table_tools import ToolsRule
from glm_runtime.text.call_messages import TOOLS_FOLLOW, describe_tools
from glm_runtime.text.chat_messages import Message, Tool
from glm_runtime.text.chat_template import TABLE_NAME
from glm_runtime.text.tool_names import find_built_in, read_tool_name

FILE_NAME = TABLE_NAME
# Version 1 has the first four keys of a role alone; a table without other keys is still written so.
FORMAT_NAME, FORMAT_VERSION = "glm-chat-table", 2
# Features that a table does not support; hosts are told about them.
TOOLS_NOT_EXPRESSED = "tools and tool calls"
METADATA_NOT_EXPRESSED = "metadata of a message"
NOT_EXPRESSED = (
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
        has_system_tools: True if tools are a JSON list below the system message, as ChatGLM3's.
        metadata: the end of a role's prefixes, before which metadata of its messages stand.
    """

    roles: Mapping[str, RoleRule]
    generation_prompt: Mapping[str, str]
    is_system_first: bool
    tools: ToolsRule | None = None
    calls: CallsRule | None = None
    has_system_tools: bool = False
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def render(
        self, messages: Sequence[Message], thinking: str = "default", tools: Sequence[Tool] = ()
    ) -> str | None:
        """Render the prompt as a host does; return None if something has no rule."""
        functions = {read_tool_name(tool) for tool in tools if not find_built_in(tool)}
        built_in = set(self.tools.built_in if self.tools else ()) - functions
        if tools and self.has_system_tools:
            messages = describe_tools(list(messages), tools)
        text = self._render_messages(name_results(messages, built_in), thinking, built_in)
        if text is None or not tools or self.has_system_tools:
            return text
        return None if self.tools is None else self.tools.insert(text, tools)

    def _render_messages(
        self, messages: Sequence[Message], thinking: str, built_in: Collection[str]
    ) -> str | None:
        if self.is_system_first:
            messages = sorted(messages, key=lambda message: message["role"] != "system")
        if self.calls is not None and self.calls.is_message:
            messages = [part for message in messages for part in part_calls(message)]
        roles = [str(message["role"]) for message in messages]
        parts = []
        for index, message in enumerate(messages):
            place = _Place(
                is_first=index == 0,
                is_repeated=index > 0 and roles[index - 1] == roles[index],
                is_after_last_user="user" not in roles[index:],
                is_thinking_off=thinking == "not_thinking",
            )
            text = self._write(message, place, built_in)
            if text is None:
                return None
            parts.append(text)
        return "".join(parts) + self.generation_prompt[thinking]

    def _write(self, message: Message, place: _Place, built_in: Collection[str]) -> str | None:
        calls = list_calls(message)
        rule = self._find_rule(message)
        if rule is None or (calls and self.calls is None):
            return None
        if self.calls is not None and self.calls.is_message and calls:
            is_empty = not self.calls.write_arguments(calls[0], built_in)
            if not is_empty or not rule.skips_empty:
                return self.calls.write(calls[0], is_first=place.is_first, built_in=built_in)
        elif self.calls is not None:
            called = "".join(str(self.calls.write(call, is_first=place.is_first)) for call in calls)
            rule = replace(rule, suffix=called + rule.suffix)
        return _write_message(rule, str(message["content"]), place)

    def _find_rule(self, message: Message) -> RoleRule | None:
        """Return the rule of a message's role, with the message's metadata in its prefixes."""
        name, metadata = str(message["role"]), message.get("metadata")
        rule = self.roles.get(name)
        if rule is None or not metadata:
            return rule
        end = self.metadata.get(name)
        if end is None:
            return None

        def insert(prefix: str | None) -> str | None:
            return None if prefix is None else f"{prefix.removesuffix(end)}{metadata}{end}"

        first, prefix, repeated = map(insert, (rule.first, rule.prefix, rule.repeated))
        return replace(rule, first=first, prefix=prefix, repeated=repeated)

    def _describe_tools(self) -> dict[str, object]:
        """Return the parts for tools as JSON, and what the table does not express."""
        has_tools = self.tools is not None or self.has_system_tools
        found: dict[str, object] = {
            "not_expressed": (
                *([] if has_tools and self.calls else [TOOLS_NOT_EXPRESSED]),
                *([] if self.metadata else [METADATA_NOT_EXPRESSED]),
                *NOT_EXPRESSED,
            )
        }
        if self.tools is not None:
            found["tools"] = self.tools.to_json()
        if self.calls is not None:  # hosts that do not know the second key refuse such calls
            found["python_calls" if self.calls.is_python else "calls"] = self.calls.to_json()
        if self.has_system_tools:
            found["system_tools"] = TOOLS_FOLLOW
        return found | ({"metadata": dict(self.metadata)} if self.metadata else {})

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
            "jinja": jinja,
        }
        content |= self._describe_tools()
        return (json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()


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
