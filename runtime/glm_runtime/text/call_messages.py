"""Writes calls and results of earlier turns for templates that do not read OpenAI's format.

A call becomes a message in the dialect of the model, as the model wrote it itself. The name of its
tool goes into the message's `metadata` where the template writes that, and otherwise into the text.
"""

import json
from collections.abc import Mapping, Sequence
from typing import NoReturn

from glm_runtime.errors import PromptError
from glm_runtime.text.dialects import all_tools, python_call
from glm_runtime.text.dialects.json_scanner import read_json, write_string
from glm_runtime.text.template_features import TemplateFeatures
from glm_runtime.text.tool_names import find_built_in, read_tool_name

# A role, a content, and other keys that the template reads (tool calls, metadata).
Message = Mapping[str, object]
Tool = Mapping[str, object]

# ChatGLM3's system message where there are tools.
TOOLS_FOLLOW = (
    "Answer the following questions as best as you can. You have access to the following tools:"
)


class CallWriter:
    """Writes the calls of one conversation, in order, and their results."""

    def __init__(self, features: TemplateFeatures, tools: Sequence[Tool]) -> None:
        functions = {read_tool_name(tool) for tool in tools if not find_built_in(tool)}
        self._features = features
        self._built_in = set(features.built_in_tools) - functions
        self._names: dict[str, str] = {}  # names of called tools by the ids of their calls
        self._waiting: list[str] = []  # names of called tools without a result

    def write_call(self, call: Mapping[str, object]) -> Message:
        """Write a call as a message.

        Raises:
            PromptError: it has no name, or its arguments are neither text nor an object.
        """
        name = read_tool_name(call)
        self._waiting.append(name)
        self._names[str(call.get("id", ""))] = name
        content = write_arguments(read_arguments(call))
        if self._features.own_tools:
            text = f'{{"name": {write_string(name)}, "arguments": {content}}}'
            return {"role": "assistant", "content": text}
        if name in self._built_in:
            content = all_tools.write_body(name, content)
        elif self._features.has_python_calls:
            content = python_call.write_body(content)
        if self._features.metadata:
            return {"role": "assistant", "metadata": name, "content": content}
        return {"role": "assistant", "content": f"{name}\n{content}"}

    def write_result(self, message: Message) -> Message:
        """Write a result as an observation.

        The result of a built-in tool gets the tool's `metadata`, unless it has some already.
        """
        written = {**message, "role": "observation"}
        first = self._waiting.pop(0) if self._waiting else ""
        name = self._names.get(str(message.get("tool_call_id", "")) or "?", first)
        if name in self._built_in and name in all_tools.RESULTS:
            written.setdefault("metadata", all_tools.RESULTS[name])
        if self._features.own_tools:
            written["content"] = _list_pages(written.get("content"))
        return written


def describe_tools(messages: list[Message], tools: Sequence[Tool]) -> list[Message]:
    """Write tools into the system message as JSON, as ChatGLM3's own code does."""
    functions = [tool.get("function", tool) for tool in tools]
    described = json.dumps(functions, ensure_ascii=False, indent=4)
    has_system = bool(messages) and messages[0].get("role") == "system"
    said = messages[0].get("content") if has_system else TOOLS_FOLLOW
    first = {"role": "system", "content": f"{said}\n{described}"}
    return [first, *messages[has_system:]]


def read_arguments(call: Mapping[str, object]) -> str | Mapping[str, object]:
    """Return the arguments of a call, a text or an object; what is left out, null or empty is {}.

    Raises:
        PromptError: they are something else.
    """
    function = call.get("function", call)
    assert isinstance(function, Mapping)
    arguments = function.get("arguments")
    if arguments is None or arguments == "":  # some programs send "" for no arguments
        return {}
    if not isinstance(arguments, str | Mapping):
        refuse_arguments(call, arguments)
    return arguments


def refuse_arguments(call: Mapping[str, object], arguments: object) -> NoReturn:
    """Refuse arguments that are no object.

    Raises:
        PromptError: always.
    """
    raise PromptError(
        f"the call of {read_tool_name(call)!r} has the arguments {arguments!r:.80} where an object "
        "is expected; write an object, or its JSON text."
    )


def write_arguments(arguments: str | Mapping[str, object]) -> str:
    """Return the arguments of a call as JSON text."""
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False)


def _list_pages(content: object) -> object:
    """Write a JSON list of pages as GLM-Z1-Rumination reads it; other results stay as they are."""
    try:
        pages = read_json(content) if isinstance(content, str) else None
    except (ValueError, RecursionError):
        return content
    if not isinstance(pages, list) or not pages:
        return content
    texts = [_write_page(place, page) for place, page in enumerate(pages)]
    return content if None in texts else "\n\n".join(map(str, texts))


def _write_page(place: int, page: object) -> str | None:
    keys = ("title", "url", "snippet")
    if not isinstance(page, dict) or not all(isinstance(page.get(key), str) for key in keys):
        return None
    title, url, snippet = (page[key] for key in keys)
    return f"【{page.get('id', place)}†{title}†{url}\n{snippet}】"
