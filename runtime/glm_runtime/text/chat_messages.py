"""Messages as OpenAI's clients write them, in the words that a GLM template knows.

GLM-4-0414's template knows results of tools as the role `observation`, and a call as an assistant's
message whose `metadata` is the tool's name; newer ones know `tool_calls` themselves.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from glm_runtime.errors import PromptError
from glm_runtime.text.tool_calls import ToolCall

# A role, a content, and whatever else the template knows (tool calls, metadata).
Message = Mapping[str, object]
Tool = Mapping[str, object]


@dataclass(frozen=True)
class ChatOptions:
    """What a conversation offers to the model, besides its messages.

    Attributes:
        tools: functions the model may call, each as OpenAI writes it or the inner object alone:
            `name`, `description`, `parameters` as a JSON schema.
        enable_thinking: for templates that know it; `None` leaves it to the template.

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
                f"two tools are named {doubled[0]!r} where names must differ; rename one."
            )

    @property
    def tool_names(self) -> tuple[str, ...]:
        """Of all tools, in order."""
        return tuple(_read_name(tool) for tool in self.tools)

    @property
    def variables(self) -> dict[str, object]:
        """What templates are told by name."""
        return {} if self.enable_thinking is None else {"enable_thinking": self.enable_thinking}


@dataclass(frozen=True)
class TemplateWords:
    """What a template knows of OpenAI's words.

    Attributes:
        tool_role: messages whose role is `tool`.
        tool_calls: calls in a message of the assistant.
        metadata: a message's name of a tool, as GLM-4-0414 has it.
        tools: the variable `tools`.
        message_tools: tools in the system message, as GLM-4-9B-chat has them.
    """

    tool_role: bool
    tool_calls: bool
    metadata: bool
    tools: bool
    message_tools: bool


def adapt_messages(
    messages: Sequence[Message], tools: Sequence[Tool], words: TemplateWords
) -> list[Message]:
    """Put roles, tools and their calls into the words of a template that does not know OpenAI's.

    Args:
        messages: as the caller has them; not changed.
        tools: that the model may call.
        words: of the template.

    Raises:
        PromptError: a tool call has no name.
    """
    adapted: list[Message] = []
    for message in messages:
        adapted.extend(_adapt(message, words))
    if tools and words.message_tools and not words.tools:
        return _put_into_system(adapted, tools)
    return adapted


def describe_call(call: ToolCall, index: int) -> dict[str, object]:
    """A call as OpenAI writes it; ids count from 0 within an answer."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{index}", "type": "function", "function": function}


def _adapt(message: Message, words: TemplateWords) -> Iterator[Message]:
    if message.get("role") == "tool" and not words.tool_role:
        yield {**message, "role": "observation"}
        return
    calls = message.get("tool_calls")
    is_known = words.tool_calls or not words.metadata
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
