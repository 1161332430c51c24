"""The part of a chat table for tools: the block that describes them.

It is derived from renderings of one or two tools, as the rest of the table is.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from glm_runtime.text.chat_messages import Message, Tool
from glm_runtime.text.tool_names import find_built_in

# Renders messages with tools, without a generation prompt; `None` if the template refuses them.
Renderer = Callable[[Sequence[Message], Sequence[Tool]], str | None]

# Digits, which no template contains.
_NAMES = ("5203617480911", "5203617480912")
QUESTION = {"role": "user", "content": "5203617480941"}


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
        built_in: texts of the tools of GLM-4 All Tools that the template describes, by their names.
        item_start: the end of `before` and `between` that is left out before such a text. The rest
            of `between`, with which `after` begins, is left out after it.
    """

    start: str
    before: str
    name_end: str | None
    between: str
    after: str
    value: str
    indent: int | None
    built_in: Mapping[str, str] = field(default_factory=dict)
    item_start: str = ""

    def insert(self, text: str, tools: Sequence[Tool]) -> str | None:
        """Insert the block into a prompt; None if the prompt starts otherwise, or lacks a text."""
        if not text.startswith(self.start):
            return None
        item_end = self.between.removesuffix(self.item_start)
        block, was_function = self.before.removesuffix(self.item_start), False
        for tool in tools:
            block += item_end if was_function else ""
            built_in = find_built_in(tool)
            if built_in is not None and built_in not in self.built_in:
                return None
            block += self._write(tool) if built_in is None else self.built_in[built_in]
            was_function = built_in is None
        block += self.after if was_function else self.after.removeprefix(item_end)
        return self.start + block + text.removeprefix(self.start)

    def to_json(self) -> dict[str, object]:
        """Return the rule as JSON; only that of GLM-4 All Tools has all keys."""
        found = dict(vars(self))
        if not self.built_in:
            del found["built_in"], found["item_start"]
        return found

    def _write(self, tool: Tool) -> str:
        function = tool.get("function", tool)
        assert isinstance(function, Mapping)
        name = "" if self.name_end is None else str(function["name"]) + self.name_end
        content = write_json(tool if self.value == "tool" else function, self.indent)
        return self.item_start + name + content


def write_json(value: object, indent: int | None) -> str:
    """Write JSON as templates do."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def guess_tools(render: Renderer) -> ToolsRule | None:
    """Derive the block of tools; None if the template writes none, or writes them otherwise."""
    tools = [_make_tool(name) for name in _NAMES]
    plain, one, two = (render([QUESTION], tools[:count]) for count in range(3))
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


def guess_built_in(render: Renderer, rule: ToolsRule, names: Sequence[str]) -> ToolsRule:
    """Add the texts of the built-in tools that the template describes to a rule for functions."""
    pairs = zip(rule.between, rule.after, strict=False)
    item_end = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    item_start = rule.between.removeprefix(item_end)
    one = _make_tool(_NAMES[0])
    plain, called = render([QUESTION], ()), render([QUESTION], [one])
    if plain is None or called is None or not rule.before.endswith(item_start):
        return rule
    end = rule.after.removeprefix(item_end) + plain.removeprefix(rule.start)
    start = called.removesuffix(end)
    built_in = {}
    for name in names:
        text = render([QUESTION], [one, {"type": name}])
        if text is None or not text.startswith(start) or not text.endswith(end):
            return rule
        built_in[name] = text.removeprefix(start).removesuffix(end)
    return replace(rule, built_in=built_in, item_start=item_start)


def _make_tool(name: str) -> dict[str, Any]:
    properties = {"a": {"type": "integer"}}
    parameters = {"type": "object", "properties": properties}
    function = {"name": name, "description": f"d{name}", "parameters": parameters}
    return {"type": "function", "function": function}
