"""Translates messages in OpenAI's format into the format that a GLM chat template reads.

GLM-4-0414's template reads tool results with the role `observation`, and a tool call as an
assistant message whose `metadata` is the tool's name. Newer templates read `tool_calls`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from glm_runtime.errors import PromptError
from glm_runtime.text.tool_calls import ToolCall

# A role, a content, and other keys that the template reads (tool calls, metadata).
Message = Mapping[str, object]
Tool = Mapping[str, object]


@dataclass(frozen=True)
class ChatOptions:
    """The tools of a conversation, and whether the model reasons.

    Attributes:
        tools: functions that the model may call, each in OpenAI's format or its inner object alone,
            with `name`, `description`, and `parameters` as a JSON schema.
        enable_thinking: value of the template's variable of that name; `None` leaves it undefined.

    Raises:
        PromptError: a tool has no name, or two have the same.
    """

    tools: tuple[Tool, ...] = ()
    enable_thinking: bool | None = None

    def __post_init__(self) -> None:
        names = self.tool_names
        doubled = [name for name in names if names.count(name) > 1]
        if doubled:
            raise PromptError(
                f"two tools have the name {doubled[0]!r} where names must differ; rename one."
            )

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names of all tools, in order."""
        return tuple(_read_name(tool) for tool in self.tools)

    @property
    def variables(self) -> dict[str, object]:
        """The template variables that the options define."""
        return {} if self.enable_thinking is None else {"enable_thinking": self.enable_thinking}


@dataclass(frozen=True)
class TemplateFeatures:
    """The parts of OpenAI's message format that a chat template reads.

    Attributes:
        tool_role: whether it reads messages with the role `tool`.
        tool_calls: whether it reads `tool_calls` of assistant messages.
        metadata: whether it reads `metadata` with a tool's name, as GLM-4-0414 does.
        tools: whether it reads the variable `tools`.
        message_tools: whether it reads tools in the system message, as GLM-4-9B-chat does.
    """

    tool_role: bool
    tool_calls: bool
    metadata: bool
    tools: bool
    message_tools: bool


def adapt_messages(
    messages: Sequence[Message], tools: Sequence[Tool], features: TemplateFeatures
) -> list[Message]:
    """Translate roles, tools and tool calls for a template that does not read OpenAI's format.

    Args:
        messages: messages in OpenAI's format; not modified.
        tools: tools that the model may call.
        features: what the template reads.

    Raises:
        PromptError: a tool call has no name.
    """
    adapted: list[Message] = []
    for message in messages:
        adapted.extend(_adapt(message, features))
    if tools and features.message_tools and not features.tools:
        return _put_into_system(adapted, tools)
    return adapted


def describe_call(call: ToolCall, index: int) -> dict[str, object]:
    """Return a call in OpenAI's format, with `index` in its id."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{index}", "type": "function", "function": function}


def _adapt(message: Message, features: TemplateFeatures) -> Iterator[Message]:
    if message.get("role") == "tool" and not features.tool_role:
        yield {**message, "role": "observation"}
        return
    calls = message.get("tool_calls")
    is_known = features.tool_calls or not features.metadata
    if is_known or not isinstance(calls, Sequence) or not calls:
        yield message
        return
    if message.get("content"):
        yield {key: value for key, value in message.items() if key != "tool_calls"}
    for call in calls:
        function = call.get("function", call)
        yield {
            "role": message.get("role"),
            "metadata": _read_name(call),
            "content": _write_arguments(function.get("arguments", {})),
        }


def _put_into_system(messages: list[Message], tools: Sequence[Tool]) -> list[Message]:
    wrapped = [
        tool if "function" in tool else {"type": "function", "function": tool} for tool in tools
    ]
    if messages and messages[0].get("role") == "system":
        return [{**messages[0], "tools": wrapped}, *messages[1:]]
    return [{"role": "system", "content": "", "tools": wrapped}, *messages]


def _write_arguments(arguments: object) -> str:
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False)


def _read_name(tool: Tool) -> str:
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name.strip() or "\n" in name:
        raise PromptError(
            f"a tool is named {name!r} where one line of text is expected; "
            'write {"type": "function", "function": {"name": ..., "parameters": ...}}.'
        )
    return name
