"""Which parts of OpenAI's message format a chat template reads, found by rendering probes.

Names inside a template prove nothing: GLM-4-9B-chat's template sets a variable `tools` of its own
and never reads the caller's. Therefore each probe is a short conversation with a word that no
template contains, and the template reads what makes that word appear in the text.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from glm_runtime.text.dialects.all_tools import BUILT_IN

# Renders messages and tools; returns `None` if the template refuses them.
ProbeRenderer = Callable[
    [Sequence[Mapping[str, object]], Sequence[Mapping[str, object]] | None], str | None
]

# Digits, because a template may change letters: `upper`, or JSON with `ensure_ascii`.
_NAME, _KEY, _VALUE, _RESULT = "7306418520931", "7306418520932", "7306418520933", "7306418520934"
_TOOL_LIST = re.compile(r'\[\s*\{\s*"name"\s*:')
_QUESTION = {"role": "user", "content": "?"}
_TOOL: Mapping[str, object] = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "?",
        "parameters": {"type": "object", "properties": {}},
    },
}


@dataclass(frozen=True)
class TemplateFeatures:
    """The parts of OpenAI's message format that a chat template reads.

    Attributes:
        tools: whether it writes the tools of the variable `tools`.
        message_tools: whether it writes tools in the system message, as GLM-4-9B-chat does.
        tool_calls: whether it writes `tool_calls` of assistant messages.
        has_text_arguments: whether `tool_calls` need arguments as JSON text, not as an object.
        has_tagged_calls: whether it writes calls between tags, as GLM-4.5 does.
        has_python_calls: whether it begins as ChatGLM3's, whose calls are Python calls.
        built_in_tools: the tools of GLM-4 All Tools that it describes in the system message.
        own_tools: tools that it writes into every prompt, as GLM-Z1-Rumination does: the schema of
            the parameters by name.
        metadata: whether it writes a tool's name in `metadata`, as GLM-4-0414 does.
        tool_role: whether it has a form of its own for messages with the role `tool`.
    """

    tools: bool
    message_tools: bool
    tool_calls: bool
    has_text_arguments: bool
    has_tagged_calls: bool
    has_python_calls: bool
    built_in_tools: tuple[str, ...]
    own_tools: Mapping[str, object]
    metadata: bool
    tool_role: bool


def find_features(render: ProbeRenderer) -> TemplateFeatures:
    """Render probes, and look for their words in the texts."""
    called = render(_call_conversation({_KEY: _VALUE}), None) or ""
    as_metadata = {"role": "assistant", "metadata": _NAME, "content": "{}"}
    return TemplateFeatures(
        tools=_NAME in (render([_QUESTION], [_TOOL]) or ""),
        message_tools=_NAME in (render(_put_into_system(), None) or ""),
        tool_calls=_NAME in called,
        has_text_arguments=f"'{_KEY}': '{_VALUE}'" in called,
        has_tagged_calls=f"<arg_key>{_KEY}</arg_key>" in called,
        has_python_calls=(render([_QUESTION], None) or "").startswith("[gMASK]sop"),
        built_in_tools=tuple(name for name in BUILT_IN if _describes(render, name)),
        own_tools=find_own_tools(render),
        metadata=_NAME in (render([_QUESTION, as_metadata], None) or ""),
        tool_role=_has_tool_role(render),
    )


def find_own_tools(render: ProbeRenderer) -> dict[str, object]:
    """Return the tools that a template writes into every prompt, as a list of JSON objects."""
    text = render([_QUESTION], None) or ""
    for match in _TOOL_LIST.finditer(text):
        try:
            tools, _ = json.JSONDecoder().raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in tools):
            return {one["name"]: one.get("parameters") for one in tools}
    return {}


def _describes(render: ProbeRenderer, name: str) -> bool:
    """Return whether a template describes a tool of this type, without the caller's words."""
    return f"## {name}\n" in (render(_put_into_system({"type": name}), None) or "")


def _put_into_system(tool: Mapping[str, object] = _TOOL) -> list[Mapping[str, object]]:
    return [{"role": "system", "content": "", "tools": [tool]}, _QUESTION]


def _call_conversation(
    arguments: Mapping[str, str], role: str = "tool"
) -> list[Mapping[str, object]]:
    call = {
        "id": "call_0",
        "type": "function",
        "function": {"name": _NAME, "arguments": arguments},
    }
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    return [_QUESTION, answer, {"role": role, "tool_call_id": "call_0", "content": _RESULT}]


def _has_tool_role(render: ProbeRenderer) -> bool:
    """A template that writes any role's name has no form of its own for `tool`."""
    text = render(_call_conversation({}), None)
    if text is None or _RESULT not in text:
        return False
    other = render(_call_conversation({}, "observation"), None)
    return other is None or text != other.replace("observation", "tool")
