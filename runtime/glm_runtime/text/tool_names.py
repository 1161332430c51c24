"""Names of tools and calls in OpenAI's format, and of the built-in tools of GLM-4 All Tools."""

from collections.abc import Mapping

from glm_runtime.errors import PromptError
from glm_runtime.text.dialects.all_tools import BUILT_IN


def find_built_in(tool: object) -> str | None:
    """Return the name of a built-in tool, such as `{"type": "python"}`; `None` for a function."""
    if not isinstance(tool, Mapping) or "function" in tool or "name" in tool:
        return None
    type_ = tool.get("type")
    return type_ if type_ in BUILT_IN else None


def is_wrapped(tool: Mapping[str, object]) -> bool:
    """Return whether a tool has a type of its own, and is not the inner object of a function."""
    return "function" in tool or find_built_in(tool) is not None


def read_tool_name(tool: object) -> str:
    """Return the name of a tool or of a call.

    Raises:
        PromptError: it has no name of one line.
    """
    built_in = find_built_in(tool)
    if built_in is not None:
        return built_in
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name.strip() or "\n" in name:
        raise PromptError(
            f"a tool is named {name!r} where one line of text is expected; "
            'write {"type": "function", "function": {"name": ..., "parameters": ...}}.'
        )
    return name
