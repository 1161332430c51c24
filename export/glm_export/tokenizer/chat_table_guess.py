"""Derives a chat table from renderings of a chat template, and compares both.

The derivation looks at the simplest conversations only. The table is kept only if it gives the same
text as the template for hundreds of generated conversations.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from glm_export.tokenizer.chat_table import CHANGES, CLOSING, ChatTable, RoleRule, Thoughts
from glm_export.tokenizer.chat_table_calls import guess_calls
from glm_export.tokenizer.chat_table_tools import guess_built_in, guess_tools
from glm_runtime.errors import HostileTemplateError, PromptError
from glm_runtime.text.chat_messages import ChatOptions, Message, Tool
from glm_runtime.text.chat_template import ChatTemplate

_REFUSALS = (PromptError, HostileTemplateError)
_ROLES = ("system", "user", "assistant", "observation", "tool")
_MARKS = ("Aq1", "Bq2", "Cq3")  # placeholders for contents; no template contains or changes them
_THOUGHT = "Dq4"
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
    "<think>\n</think>",
    "two </think> of </think> them",
    "answer briefly /nothink",
    "tab\t, \\n, quotes \" and '",
    "\u3000wide blank\u3000\x1f",
    "emoji 🙂",
    "long " * 1000,
)


_TOOLS: tuple[Tool, ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Look up. 查 <b>&'\"\\ \u3000",
            "parameters": parameters,
        },
    }
    for name, parameters in (
        ("look_up", {"type": "object", "properties": {"at": {"type": "string"}}}),
        ("计算", {"type": "object", "properties": {}, "required": [], "strict": True}),
        ("now", {"enum": [1, -2.5, None, False, [], {}, [["x"]]]}),
    )
)
_ARGUMENTS: tuple[dict[str, object], ...] = (
    {},
    {"at": '诗篇 1 "q"\n'},
    {"at": "x", "n": 3, "list": [1, {"a": None}], "empty": {}},
    {"at": "it's \\ \x1f", "is_new": True, "ids": [False, {"k'": '"'}], "rate": -1.5},
)
_BUILT_IN_ARGUMENTS: tuple[dict[str, object], ...] = (
    {"code": 'print("诗")\n', "prompt": "A cat.", "action": "open_url", "url": "x"},
    {"code": "", "prompt": "", "action": "search", "recency_days": 7, "query": 'it\'s "x"'},
    {"code": 1, "action": "mclick", "ids": [1, 2], "more": {"a": None}},
    {"action": "other"},
)
_METADATA = ("", "browser_result", "quote_result [7†来源]", " <|user|>\n", "get")


def build_chat_table(template: ChatTemplate) -> ChatTable | None:
    """Build a table that gives the template's text; return None if no table can."""
    renderer = _Renderer(template)
    table = _guess(renderer)
    if table is None or not _is_equal(table, template):
        return None
    return _add_tools(table, renderer, template)


def _add_tools(table: ChatTable, renderer: "_Renderer", template: ChatTemplate) -> ChatTable:
    """Add the rules of tools and calls, each if it gives the template's text."""

    def render(messages: Sequence[Message], tools: Sequence[Tool]) -> str | None:
        return renderer.render(messages, ChatOptions(tuple(tools)), is_answer_next=False)

    is_message = not template.features.tool_calls
    calls = guess_calls(render, is_message=is_message)
    with_calls = replace(table, calls=calls)
    if calls is not None and _writes_tools(with_calls, template, has_tools=False):
        table = with_calls
    with_metadata = replace(table, metadata=_guess_metadata(renderer, table))
    if with_metadata.metadata and _writes_metadata(with_metadata, template):
        table = with_metadata
    tools = guess_tools(render)
    if tools is None:
        with_list = replace(table, has_system_tools=True)
        return with_list if _writes_tools(with_list, template, has_tools=True) else table
    all_tools = guess_built_in(render, tools, template.features.built_in_tools)
    for rule in (all_tools, tools):
        with_tools = replace(table, tools=rule)
        if _writes_tools(with_tools, template, has_tools=True):
            return with_tools
    return table


def _guess_metadata(renderer: "_Renderer", table: ChatTable) -> dict[str, str]:
    """Find between which parts of a role's prefix metadata stand, for roles that have them."""
    found = {}
    for role, rule in table.roles.items():
        message = {"role": role, "content": _MARKS[0], "metadata": _MARKS[1]}
        later = [{"role": "user", "content": _MARKS[2]}, message]
        text = renderer.render([message] if rule.prefix is None else later, is_answer_next=False)
        end = (text or "").partition(_MARKS[1])[2].partition(_MARKS[0])[0]
        if (text or "").count(_MARKS[1]) == 1 and (rule.prefix or rule.first or "").endswith(end):
            found[role] = end
    return found


def _writes_metadata(table: ChatTable, template: ChatTemplate) -> bool:
    """Return True if both give the same text for conversations with metadata."""
    for messages in generate_metadata_conversations(table):
        try:
            text = template.render(messages)
        except _REFUSALS:
            return False
        if table.render(messages) != text:
            return False
    return True


def generate_metadata_conversations(table: ChatTable, seed: int = 0) -> Iterator[list[Message]]:
    """Yield conversations in which messages have metadata, of the roles that may have them."""
    generator = random.Random(seed)
    for messages in itertools.islice(generate_conversations(table, seed), _CONVERSATIONS // 4):
        yield [
            {**one, "metadata": generator.choice(_METADATA)}
            if one["role"] in table.metadata and generator.random() < 0.5
            else one
            for one in messages
        ]


def _writes_tools(table: ChatTable, template: ChatTemplate, *, has_tools: bool) -> bool:
    """Return True if both give the same text for conversations with calls, and with tools."""
    for messages, tools in generate_tool_conversations(table):
        given = tools if has_tools else ()
        try:
            text = template.render(messages, ChatOptions(given))
        except _REFUSALS:
            return False
        if table.render(messages, tools=given) != text:
            return False
    return True


def generate_tool_conversations(
    table: ChatTable, seed: int = 0
) -> Iterator[tuple[list[Message], tuple[Tool, ...]]]:
    """Yield conversations with tools, and with calls if the table has a rule for them."""
    generator = random.Random(seed)
    built_in = tuple(table.tools.built_in) if table.tools is not None else ()
    later = [role for role, rule in table.roles.items() if rule.prefix is not None]
    results = [role for role in later if role == "tool"]
    for _ in range(_CONVERSATIONS // 4):
        messages: list[Message] = [{"role": "user", "content": generator.choice(_CONTENTS)}]
        if "system" in later and generator.random() < 0.5:
            messages.insert(0, {"role": "system", "content": generator.choice(_CONTENTS)})
        for _ in range(generator.randrange(3)):
            content = generator.choice(("", "", "I look.", "Hm </think>\n\nLook: "))
            answer: Message = {"role": "assistant", "content": content}
            count = generator.randrange(1, 3)
            if table.calls is not None:
                calls = [_make_call(generator, built_in) for _ in range(count)]
                answer = {**answer, "tool_calls": calls}
            messages.append(answer)
            messages += [{"role": role, "content": "result 结果"} for role in results] * count
        described = ({"type": name} for name in built_in)
        yield messages, tuple(generator.sample((*_TOOLS, *described), k=generator.randrange(1, 4)))


def _make_call(generator: random.Random, built_in: Sequence[str]) -> dict[str, object]:
    name = generator.choice(("look_up", *built_in))
    arguments = generator.choice(_BUILT_IN_ARGUMENTS if name in built_in else _ARGUMENTS)
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


class _Renderer:
    """Renders placeholders instead of contents, and splits the text at them."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template

    def render(
        self,
        messages: Sequence[Message],
        options: ChatOptions | None = None,
        *,
        is_answer_next: bool = True,
    ) -> str | None:
        try:
            return self._template.render(messages, options, is_answer_next=is_answer_next)
        except _REFUSALS:
            return None

    def split(self, *roles: str, options: ChatOptions | None = None) -> list[str] | None:
        """Return the text around the placeholders; None unless each one occurs exactly once."""
        messages = [
            {"role": role, "content": mark} for role, mark in zip(roles, _MARKS, strict=False)
        ]
        rest = self.render(messages, options, is_answer_next=False)
        parts = []
        for mark in _MARKS[: len(roles)]:
            if rest is None or rest.count(mark) != 1:
                return None
            before, _, rest = rest.partition(mark)
            parts.append(before)
        return None if rest is None else [*parts, rest]


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
            roles[role] = _refine(renderer, role, rule)
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


def _refine(renderer: _Renderer, role: str, rule: RoleRule) -> RoleRule:
    """Add what the simplest conversations do not show; `_is_equal` rejects wrong guesses."""
    twice = renderer.split(role, role)
    if twice is not None and rule.prefix is not None and twice[1].startswith(rule.suffix):
        repeated = twice[1].removeprefix(rule.suffix)
        if repeated != rule.prefix:
            rule = replace(rule, repeated=repeated)
    rule = _refine_empty(renderer, role, rule)
    off = renderer.split(role, options=ChatOptions(enable_thinking=False))
    if off is not None and off[-1] != rule.suffix and off[-1].endswith(rule.suffix):
        rule = replace(rule, no_thinking=off[-1].removesuffix(rule.suffix))
    return rule


def _refine_empty(renderer: _Renderer, role: str, rule: RoleRule) -> RoleRule:
    """Find what is left of a message without content, and where its reasoning stands."""
    first, prefix = rule.first, rule.prefix
    if first is None or prefix is None or not first.endswith(prefix):
        return rule
    text = renderer.render([{"role": role, "content": ""}], is_answer_next=False)
    if text is None or text == first + rule.suffix:
        return rule
    if text == rule.start:
        return replace(rule, skips_empty=True)
    kept = text.removesuffix(rule.suffix)
    lead = first.removeprefix(kept)
    if not first.startswith(kept) or not prefix.endswith(lead):
        return rule
    rule = replace(rule, first=kept, prefix=prefix.removesuffix(lead), lead=lead)
    content = f"{_THOUGHT}{CLOSING}{_MARKS[0]}"
    thought = renderer.render([{"role": role, "content": content}], is_answer_next=False)
    before, mark, after = (thought or "").partition(_THOUGHT)
    end = lead + _MARKS[0] + rule.suffix
    if not mark or not after.endswith(end):
        return rule
    return _add_thoughts(rule, before, after.removesuffix(end))


def _add_thoughts(rule: RoleRule, before: str, closing: str) -> RoleRule:
    """Divide the prefix where the text with reasoning begins to differ."""
    first, prefix = rule.first or "", rule.prefix or ""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, before, strict=False))
    base = "".join(letter for letter, _ in pairs)
    empty = first.removeprefix(base)
    if not prefix.endswith(empty):
        return rule
    return replace(
        rule,
        first=base,
        prefix=prefix.removesuffix(empty),
        thoughts=Thoughts(before.removeprefix(base), closing, empty),
    )


def _guess_content(renderer: _Renderer, role: str, parts: list[str], *, is_first: bool) -> str:
    """Return the first change that matches; if none does, `_is_equal` will reject the table."""
    before = [] if is_first else [("user", _MARKS[0]), ("assistant", _MARKS[1])]
    after = [] if role == "user" else [("user", _MARKS[2])]  # the reasoning before it is dropped
    for name, change in CHANGES.items():
        for content in (" \n x \n ", f"t{CLOSING} u "):
            messages = [{"role": r, "content": c} for r, c in [*before, (role, content), *after]]
            text = renderer.render(messages) or ""
            if parts[-2] + change(content) + parts[-1] not in text:
                break
        else:
            return name
    return "as_is"


def _guess_prompts(renderer: _Renderer) -> dict[str, str] | None:
    prompts = {}
    for name, choice in (("default", None), ("thinking", True), ("not_thinking", False)):
        options = ChatOptions(enable_thinking=choice)
        plain = renderer.split("user", options=options)
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
