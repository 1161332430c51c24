"""Translates messages in OpenAI's format into the format that a GLM chat template reads.

GLM-4-0414's template reads tool results with the role `observation`, and a tool call as an
assistant message whose `metadata` is the tool's name. Newer templates read `tool_calls`. Read
`template_features.py` for how a template's format is found.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from glm_runtime.errors import PromptError
from glm_runtime.text.call_messages import (
    CallWriter,
    Message,
    Tool,
    describe_tools,
    read_arguments,
    refuse_arguments,
    write_arguments,
)
from glm_runtime.text.dialects.json_scanner import read_json
from glm_runtime.text.template_features import TemplateFeatures
from glm_runtime.text.tool_calls import ToolCall
from glm_runtime.text.tool_names import find_built_in, is_wrapped, read_tool_name

__all__ = [
    "ChatOptions",
    "Message",
    "Tool",
    "adapt_messages",
    "count_calls",
    "describe_call",
    "is_plain",
    "require_messages",
    "simplify_messages",
]
# Names of an answer's reasoning; templates read the first or the second one.
_REASONING = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True)
class ChatOptions:
    """The tools of a conversation, and how its prompt is made.

    Attributes:
        tools: functions that the model may call, each in OpenAI's format or its inner object alone,
            with `name`, `description`, and `parameters` as a JSON schema, or as a class with
            `model_json_schema()`, as in pydantic; or a built-in tool of GLM-4 All Tools, such as
            `{"type": "python"}`.
        enable_thinking: value of the template's variable of that name; `None` leaves it undefined.
        continues_answer: whether the last message is the beginning of the answer, which the model
            continues.
        is_sanitized: whether names of control tokens in messages and tools are read as plain text,
            so that a message cannot contain the turn of another role. Without it, prompts are equal
            to those of transformers.
        streams_calls: whether pieces have the arguments of calls while they arrive; then a call
            counts as soon as its arguments begin, and not only where nothing else follows it.
        template: name of one of the checkpoint's named templates; `None` takes `tool_use` where
            there are tools and such a template, and `default` otherwise.

    Raises:
        PromptError: a tool has no name, two have the same, or a value has another type.
    """

    tools: tuple[Tool, ...] = ()
    enable_thinking: bool | None = None
    continues_answer: bool = False
    is_sanitized: bool = False
    streams_calls: bool = False
    template: str | None = None

    def __post_init__(self) -> None:
        _check_types(self)
        object.__setattr__(self, "tools", tuple(map(_describe_parameters, self.tools)))
        names = self.tool_names
        doubled = [name for name in names if names.count(name) > 1]
        if doubled:
            raise PromptError(
                f"two tools have the name {doubled[0]!r} where names must differ; rename one."
            )

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names of all tools, in order."""
        return tuple(read_tool_name(tool) for tool in self.tools)

    @property
    def parameters(self) -> dict[str, object]:
        """The schema of the parameters of each function, by its name."""
        functions = [tool for tool in self.tools if not find_built_in(tool)]
        return {read_tool_name(tool): _find_parameters(tool) for tool in functions}

    @property
    def built_in_tools(self) -> tuple[str, ...]:
        """The built-in tools among the tools."""
        return tuple(name for tool in self.tools if (name := find_built_in(tool)))

    @property
    def variables(self) -> dict[str, object]:
        """The template variables that the options define."""
        return {} if self.enable_thinking is None else {"enable_thinking": self.enable_thinking}


def _check_types(options: ChatOptions) -> None:
    for name in ("enable_thinking", "continues_answer", "is_sanitized", "streams_calls"):
        value = getattr(options, name)
        if not isinstance(value, bool) and not (value is None and name == "enable_thinking"):
            raise PromptError(
                f"{name} is {value!r:.80} where true or false is expected; correct it."
            )
    if not isinstance(options.template, str | None):
        raise PromptError(
            f"template is {options.template!r:.80} where the name of a template is expected; "
            "correct it."
        )
    if not isinstance(options.tools, list | tuple):
        raise PromptError(
            f"tools is {options.tools!r:.80} where a list of objects is expected; write tools in "
            "OpenAI's format."
        )


def _find_parameters(tool: Tool) -> object:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    return function.get("parameters") if isinstance(function, Mapping) else None


def _describe_parameters(tool: Tool) -> Tool:
    """Replace a class of parameters by its JSON schema."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    parameters = _find_parameters(tool)
    describe = getattr(parameters, "model_json_schema", None)
    if describe is None or not isinstance(function, Mapping):
        return tool
    described = {**function, "parameters": describe()}
    return {**tool, "function": described} if "function" in tool else described


def simplify_messages(messages: Sequence[Message]) -> list[Message]:
    """Drop keys whose value is null, name reasoning as transformers does, and join text parts.

    Raises:
        PromptError: a message has no role, a part that is no text, or, as an answer, neither
            content nor calls.
    """
    return [_simplify(place, message) for place, message in enumerate(messages, 1)]


def adapt_messages(
    messages: Sequence[Message], tools: Sequence[Tool], features: TemplateFeatures
) -> list[Message]:
    """Translate roles, tools and tool calls for a template that does not read OpenAI's format.

    Args:
        messages: messages of `simplify_messages`; not modified.
        tools: tools that the model may call.
        features: what the template reads.

    Raises:
        PromptError: a tool call has no name, or arguments that the template cannot write.
    """
    writer = CallWriter(features, tools)
    adapted: list[Message] = []
    for message in messages:
        adapted.extend(_adapt(message, features, writer))
    if not tools or features.tools:
        return adapted
    if features.message_tools:
        return _put_into_system(adapted, tools)
    return describe_tools(adapted, tools) if features.has_python_calls else adapted


def is_plain(messages: Sequence[Message]) -> bool:
    """Return whether no message needs a translation: there are no calls and no results."""
    return not any("tool_calls" in one or one.get("role") == "tool" for one in messages)


def describe_call(call: ToolCall) -> dict[str, object]:
    """Return a call in OpenAI's format."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def count_calls(messages: Sequence[Message]) -> int:
    """Return the number of tool calls in a conversation, from which ids of new calls go on."""
    calls = [message.get("tool_calls") for message in messages]
    return sum(len(some) for some in calls if isinstance(some, list | tuple))


def require_messages(messages: object) -> None:
    """Refuse a text, a single message, or other things where a list of messages is expected.

    Raises:
        PromptError: says what was found.
    """
    is_list = isinstance(messages, Sequence) and not isinstance(messages, str)
    wrong = messages
    if isinstance(messages, Sequence) and is_list:
        wrong = next((one for one in messages if not isinstance(one, Mapping)), None)
        if wrong is None:
            return
    found = repr(wrong) if len(repr(wrong)) < 60 else f"{repr(wrong)[:60]}..."
    advice = ", or call Model.ask with the text" if isinstance(wrong, str) else ""
    raise PromptError(
        f"the messages are {'' if not is_list else 'a list with '}{found} where a list of messages "
        f'is expected; write [{{"role": "user", "content": "..."}}]{advice}.'
    )


def _simplify(place: int, message: Message) -> Message:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise PromptError(
            f"message {place} is {message!r:.80} where an object with a role is expected; "
            'write {"role": "user", "content": ...}.'
        )
    kept = {key: value for key, value in message.items() if value is not None}
    reasoning = next((kept[key] for key in _REASONING if key in kept), None)
    if reasoning is not None:
        kept = {"thinking": reasoning, **kept, "reasoning_content": reasoning}
    content = kept.get("content", "")
    if isinstance(content, list | tuple):
        kept["content"] = "".join(_read_part(place, part) for part in content)
    elif not isinstance(content, str):
        raise PromptError(
            f"message {place} has the content {content!r:.80} where text is expected; write a "
            "text, or a list of text parts."
        )
    calls = kept.get("tool_calls", [])
    if not isinstance(calls, list | tuple) or not all(isinstance(one, Mapping) for one in calls):
        raise PromptError(
            f"message {place} has the tool calls {calls!r:.80} where a list of objects is "
            "expected; write calls in OpenAI's format."
        )
    if kept["role"] == "assistant" and not calls and not {"content", "thinking"} & kept.keys():
        raise PromptError(
            f"message {place} of the assistant has neither content nor calls; write a content, "
            "which may be empty, or leave the message out."
        )
    return kept


def _read_part(place: int, part: object) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(text, str):
        return text
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise PromptError(
        f"message {place} has a part of the type {kind!r} where only text is supported; "
        'write {"type": "text", "text": ...}.'
    )


def _adapt(message: Message, features: TemplateFeatures, writer: CallWriter) -> Iterator[Message]:
    if message.get("role") == "tool" and not features.tool_role:
        yield writer.write_result(message)
        return
    calls = message.get("tool_calls")
    if not isinstance(calls, Sequence) or not calls:
        yield message
        return
    if features.tool_calls:
        yield {**message, "tool_calls": [_adapt_call(call, features) for call in calls]}
        return
    if message.get("content"):
        yield {key: value for key, value in message.items() if key != "tool_calls"}
    for call in calls:
        yield writer.write_call(call)


def _adapt_call(call: Mapping[str, object], features: TemplateFeatures) -> Mapping[str, object]:
    """Convert the arguments of a call to JSON text or to an object."""
    read_tool_name(call)
    function = call.get("function", call)
    assert isinstance(function, Mapping)
    arguments: object = read_arguments(call)
    if features.has_text_arguments:
        arguments = write_arguments(read_arguments(call))
    elif isinstance(arguments, str):
        arguments = _parse_arguments(arguments)
    if features.has_tagged_calls and not isinstance(arguments, Mapping):
        refuse_arguments(call, arguments)  # there is a tag for each key
    adapted = {**function, "arguments": arguments}
    return {**call, "function": adapted} if "function" in call else adapted


def _put_into_system(messages: list[Message], tools: Sequence[Tool]) -> list[Message]:
    wrapped = [
        tool if is_wrapped(tool) else {"type": "function", "function": tool} for tool in tools
    ]
    if messages and messages[0].get("role") == "system":
        return [{**messages[0], "tools": wrapped}, *messages[1:]]
    return [{"role": "system", "content": "", "tools": wrapped}, *messages]


def _parse_arguments(text: str) -> object:
    """Return the object that the text describes; a text that is no object stays as it is."""
    try:
        found = read_json(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) else text
