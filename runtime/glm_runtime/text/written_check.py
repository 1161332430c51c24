"""Finds messages and tools that a chat template leaves out of the prompt.

A template may drop a role, a system message or a tool without an error. The check renders the
conversation again, with a number in place of each content and of each tool's name, and looks for
these numbers in the text. It does not look for the contents themselves, because a template may
change them, and a question may contain a tool's name.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from glm_runtime.errors import HostileTemplateError, PromptError
from glm_runtime.text.call_messages import Message, Tool
from glm_runtime.text.tool_names import find_built_in, read_tool_name

# Renders a conversation with its tools.
Renderer = Callable[[Sequence[Message], Sequence[Tool]], str]


@dataclass(frozen=True)
class _Mark:
    """A number that must appear in the text, and the sentence for the case that it does not."""

    number: str
    refusal: str


def require_written(
    messages: Sequence[Message], tools: Sequence[Tool], render: Renderer, known: Collection[str]
) -> None:
    """Check that a template writes every message and every tool.

    Args:
        messages: messages of `simplify_messages`.
        tools: tools of the conversation.
        render: renders messages and tools.
        known: names of tools that the template describes in its own words.

    Raises:
        PromptError: something is left out.
        HostileTemplateError: the template does something that is not allowed.
    """
    marks: list[_Mark] = []
    marked = [_mark_message(place, one, marks) for place, one in enumerate(messages, 1)]
    named = [_mark_tool(tool, known, marks) for tool in tools]
    try:
        text = render(marked, named)
    except HostileTemplateError:
        raise
    except PromptError:
        return  # the template reads a content, so that its messages cannot be replaced
    missing = next((mark for mark in marks if mark.number not in text), None)
    if missing is not None:
        raise PromptError(missing.refusal)


def _mark_message(place: int, message: Message, marks: list[_Mark]) -> Message:
    return {**message, **dict(_mark_fields(place, message, marks))}


def _mark_fields(place: int, message: Message, marks: list[_Mark]) -> Iterator[tuple[str, str]]:
    role = message["role"]
    content, metadata = message.get("content"), message.get("metadata")
    if isinstance(content, str) and content.strip():
        refusal = (
            f"the model's chat template does not write messages with the role {role!r} into the "
            f"prompt (message {place}); leave it out, or put its text into a user's message."
        )
        yield "content", _add_mark(marks, refusal)
    if role == "assistant" and isinstance(metadata, str) and metadata.strip():
        refusal = (
            f"the model's chat template does not write the metadata {metadata!r} into the prompt "
            f"(message {place}); write the call as `tool_calls`, or into the content."
        )
        yield "metadata", _add_mark(marks, refusal)


def _mark_tool(tool: Tool, known: Collection[str], marks: list[_Mark]) -> Tool:
    name = read_tool_name(tool)
    if name in known:
        return tool
    refusal = (
        f"the model's chat template does not write the tool {name!r} into the prompt; leave the "
        "tools out, or describe them in a system message."
    )
    number = _add_mark(marks, refusal)
    function = tool.get("function")
    if find_built_in(tool) is not None:
        return tool  # only the template itself can describe it
    if isinstance(function, Mapping):
        return {**tool, "function": {**function, "name": number}}
    return {**tool, "name": number}


def _add_mark(marks: list[_Mark], refusal: str) -> str:
    """Add a number that no template contains; all have the same number of digits."""
    number = f"90716{len(marks):07d}35"
    marks.append(_Mark(number, refusal))
    return number
