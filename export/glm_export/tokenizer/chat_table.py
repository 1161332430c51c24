"""`chat_table.json`: prefix and suffix of each role's messages, for hosts without Jinja.

The table is derived from a few renderings of the checkpoint's chat template. It is kept only if it
gives the same text as the template for hundreds of generated conversations. It supports plain
conversations only: no tools, tool calls, `metadata` or content in parts.
"""

import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from glm_runtime.errors import HostileTemplateError, PromptError
from glm_runtime.text.chat_messages import ChatOptions, Message
from glm_runtime.text.chat_template import TABLE_NAME, ChatTemplate

FILE_NAME = TABLE_NAME
FORMAT_NAME, FORMAT_VERSION = "glm-chat-table", 1
_REFUSALS = (PromptError, HostileTemplateError)
# Features that a table does not support; hosts are told about them.
NOT_EXPRESSED = (
    "tools and tool calls",
    "metadata of a message",
    "contents in parts, as for images",
    "thinking that a template keeps of earlier answers",
    "templates whose text depends on a date, a count of rounds or what follows a message",
)

_ROLES = ("system", "user", "assistant", "observation", "tool")
_CLOSING = "</think>"
_MARKS = ("Aq1", "Bq2", "Cq3")  # placeholders for contents; no template contains or changes them
_CONVERSATIONS = 400
_CONTENTS = (
    "Hello",
    "你好，世界",
    "  two blanks around  ",
    "\n\nlines\n",
    "",
    "{{ braces }} {% set x = 1 %}",
    "<|user|>\nnot a role",
    "<think>\nthoughts\n</think>\n\nthe answer",
    "two </think> of </think> them",
    "tab\t, \\n, quotes \" and '",
    "\u3000wide blank\u3000\x1f",
    "emoji 🙂",
    "long " * 1000,
)


def _take_answer(content: str) -> str:
    return content.rsplit(_CLOSING, maxsplit=1)[-1].strip()


# Changes that a template may make to a message's content, by their names in the table.
_CHANGES: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {"as_is": str, "strip": str.strip, "answer": _take_answer}
)
_JINJA_CHANGES: Mapping[str, str] = MappingProxyType(
    {
        "as_is": "{{- message.content -}}",
        "strip": "{{- message.content.strip() -}}",
        "answer": f"{{{{- message.content.split('{_CLOSING}')[-1].strip() -}}}}",
    }
)


@dataclass(frozen=True)
class RoleRule:
    """How the messages of a role are written.

    Attributes:
        first: prefix of the conversation's first message; None if the role cannot be first.
        prefix: prefix of a later message; None if the role can only be first.
        suffix: text after each message.
        content: change made to the content, a key of `_CHANGES`.
    """

    first: str | None
    prefix: str | None
    suffix: str
    content: str

    def to_jinja(self) -> str:
        """Return Jinja that writes one `message`; `place.is_first` is true for the first one."""
        first, later = (
            "{{- raise_exception('no rule for this order of roles') -}}"
            if text is None
            else _write(text)
            for text in (self.first, self.prefix)
        )
        before = first
        if first != later:
            before = f"{{%- if place.is_first -%}}{first}{{%- else -%}}{later}{{%- endif -%}}"
        return before + _JINJA_CHANGES[self.content] + _write(self.suffix)


@dataclass(frozen=True)
class ChatTable:
    """A chat template as a table.

    Attributes:
        roles: rule of each supported role.
        generation_prompt: text that starts the answer, by thinking mode.
        is_system_first: True if system messages are written before all others.
    """

    roles: Mapping[str, RoleRule]
    generation_prompt: Mapping[str, str]
    is_system_first: bool

    def render(self, messages: Sequence[Message], thinking: str = "default") -> str | None:
        """Render the prompt as a host does; return None if a message has no rule."""
        if self.is_system_first:
            messages = sorted(messages, key=lambda message: message["role"] != "system")
        parts = []
        for place, message in enumerate(messages):
            rule = self.roles.get(str(message["role"]))
            before = None if rule is None else rule.prefix if place else rule.first
            if rule is None or before is None:
                return None
            content = _CHANGES[rule.content](str(message["content"]))
            parts.append(before + content + rule.suffix)
        return "".join(parts) + self.generation_prompt[thinking]

    def to_jinja(self) -> str:
        """Return the table as a simple Jinja template, for hosts that support a part of Jinja.

        It refuses tools. The `strip` of such a host may remove ASCII white space only.
        """
        if self.is_system_first:
            loops = [" if message.role == 'system'", " if message.role != 'system'"]
        else:
            loops = [""]
        refusal = "{{- raise_exception('this template writes no tools') -}}"
        parts = ["{%- if tools -%}" + refusal + "{%- endif -%}"]
        parts.append("{%- set place = namespace(is_first=true) -%}")
        for condition in loops:
            parts.append(f"{{%- for message in messages{condition} -%}}")
            for word, (name, rule) in zip(_branch_words(), self.roles.items(), strict=False):
                parts.append(f"{{%- {word} message.role == {_quote(name)} -%}}{rule.to_jinja()}")
            refusal = "{{- raise_exception('no rule for the role ' + message.role) -}}"
            parts.append("{%- else -%}" + refusal + "{%- endif -%}")
            parts.append("{%- set place.is_first = false -%}{%- endfor -%}")
        prompt = {name: _write(text) for name, text in self.generation_prompt.items()}
        parts.append(
            "{%- if add_generation_prompt -%}{%- if enable_thinking is not defined -%}"
            f"{prompt['default']}{{%- elif enable_thinking -%}}{prompt['thinking']}"
            f"{{%- else -%}}{prompt['not_thinking']}{{%- endif -%}}{{%- endif -%}}"
        )
        return "".join(parts)

    def to_json(self) -> bytes:
        """Return the file's content; equal tables give equal bytes."""
        content = {
            "format": FORMAT_NAME,
            "format_version": FORMAT_VERSION,
            "system_first": self.is_system_first,
            "roles": {name: vars(rule) for name, rule in self.roles.items()},
            "generation_prompt": dict(self.generation_prompt),
            "not_expressed": NOT_EXPRESSED,
            "jinja": self.to_jinja(),
        }
        return (json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()


def _write(text: str) -> str:
    """Return Jinja that writes this text."""
    return f"{{{{- {_quote(text)} -}}}}" if text else ""


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + "'"


def _branch_words() -> Iterator[str]:
    yield "if"
    yield from itertools.repeat("elif")


def build_chat_table(template: ChatTemplate) -> ChatTable | None:
    """Build a table that gives the template's text; return None if no table can."""
    table = _guess(_Renderer(template))
    if table is None or not _is_equal(table, template):
        return None
    return table


class _Renderer:
    """Renders placeholders instead of contents, and splits the text at them."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template

    def render(self, messages: Sequence[Message], options: ChatOptions | None = None) -> str | None:
        try:
            return self._template.render(messages, options)
        except _REFUSALS:
            return None

    def split(self, *roles: str) -> list[str] | None:
        """Return the text around the placeholders; None unless each one occurs exactly once."""
        messages = [
            {"role": role, "content": mark} for role, mark in zip(roles, _MARKS, strict=False)
        ]
        try:
            text = self._template.render(messages, is_answer_next=False)
        except _REFUSALS:
            return None
        parts, rest = [], text
        for mark in _MARKS[: len(roles)]:
            if rest.count(mark) != 1:
                return None
            before, _, rest = rest.partition(mark)
            parts.append(before)
        return [*parts, rest]


def _guess(renderer: _Renderer) -> ChatTable | None:
    """Derive a table from the simplest conversations."""
    turns = renderer.split("user", "assistant", "user")
    asked = renderer.split("user", "assistant")
    if turns is None or asked is None or not turns[2].startswith(asked[2]):
        return None
    suffixes = {"user": turns[3], "assistant": asked[2]}
    prefixes = {"user": turns[2].removeprefix(asked[2])}
    if not turns[1].startswith(turns[3]):
        return None
    prefixes["assistant"] = turns[1].removeprefix(turns[3])
    roles = {}
    for role in _ROLES:
        rule = _guess_role(renderer, role, suffixes, prefixes)
        if rule is not None:
            roles[role] = rule
    prompts = _guess_prompts(renderer)
    if prompts is None:
        return None
    return ChatTable(roles, prompts, _is_system_first(renderer))


def _guess_role(
    renderer: _Renderer, role: str, suffixes: Mapping[str, str], prefixes: Mapping[str, str]
) -> RoleRule | None:
    alone = renderer.split(role)
    later = renderer.split("user", "assistant", role)
    found = alone or later
    if found is None:
        return None
    suffix = suffixes.get(role, found[-1])
    prefix = prefixes.get(role)
    if prefix is None and later is not None and later[2].startswith(suffixes["assistant"]):
        prefix = later[2].removeprefix(suffixes["assistant"])
    if prefix is None and role == "system" and _is_system_first(renderer):
        both = renderer.split("system", "system")
        prefix = None if both is None else both[1].removeprefix(suffix)
    content = _guess_content(renderer, role, found, is_first=alone is not None)
    return RoleRule(None if alone is None else alone[0], prefix, suffix, content)


def _guess_content(renderer: _Renderer, role: str, parts: list[str], *, is_first: bool) -> str:
    """Return the first change that matches; if none does, `_is_equal` will reject the table."""
    before = [] if is_first else [("user", _MARKS[0]), ("assistant", _MARKS[1])]
    for name, change in _CHANGES.items():
        for content in (" \n x \n ", f"t{_CLOSING} u "):
            messages = [{"role": r, "content": c} for r, c in [*before, (role, content)]]
            text = renderer.render(messages) or ""
            if parts[-2] + change(content) + parts[-1] not in text:
                break
        else:
            return name
    return "as_is"


def _guess_prompts(renderer: _Renderer) -> dict[str, str] | None:
    plain = renderer.split("user")
    prompts = {}
    for name, choice in (("default", None), ("thinking", True), ("not_thinking", False)):
        options = ChatOptions(enable_thinking=choice)
        text = renderer.render([{"role": "user", "content": _MARKS[0]}], options)
        start = "" if plain is None else _MARKS[0].join(plain)
        if text is None or plain is None or not text.startswith(start):
            return None
        prompts[name] = text.removeprefix(start)
    return prompts


def _is_system_first(renderer: _Renderer) -> bool:
    """Return True if the template writes a later system message before the other messages."""
    messages = [{"role": "user", "content": _MARKS[0]}, {"role": "system", "content": _MARKS[1]}]
    text = renderer.render(messages) or ""
    return 0 <= text.find(_MARKS[1]) < text.find(_MARKS[0])


def _is_equal(table: ChatTable, template: ChatTemplate) -> bool:
    """Return True if table and template give the same text for every generated conversation."""
    choices = {"default": None, "thinking": True, "not_thinking": False}
    for messages in generate_conversations(table):
        for name, choice in choices.items():
            try:
                text = template.render(messages, ChatOptions(enable_thinking=choice))
            except _REFUSALS:
                return False
            if table.render(messages, name) != text:
                return False
    return True


def generate_conversations(table: ChatTable, seed: int = 0) -> Iterator[list[Message]]:
    """Yield conversations the table has rules for: each content once, then roles in any order."""
    first = [role for role, rule in table.roles.items() if rule.first is not None]
    later = [role for role, rule in table.roles.items() if rule.prefix is not None]
    for role, content in itertools.product(first, _CONTENTS):
        yield [{"role": role, "content": content}]
    generator = random.Random(seed)
    for _ in range(_CONVERSATIONS):
        count = generator.choice((*range(7), 30))
        roles = [generator.choice(first), *generator.choices(later, k=count)]
        if table.is_system_first and roles[0] != "system":
            roles = [role for role in roles if role != "system" or table.roles["system"].prefix]
        yield [{"role": role, "content": generator.choice(_CONTENTS)} for role in roles]
