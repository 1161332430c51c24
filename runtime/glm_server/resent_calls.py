"""Calls of earlier answers whose arguments are not complete, since an answer may end inside a call.

Clients send back what the model wrote. Most dialects take the arguments as a text. GLM-4.5 has a
tag for each key, so its template needs an object: what can be read of the text becomes one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic_core

Message = Mapping[str, Any]


def complete_calls(messages: Sequence[Message]) -> list[Message]:
    """Return messages whose incomplete arguments are the objects that can be read of them.

    A text that does not begin as an object stays as it is.
    """
    return [
        {**one, "tool_calls": [_complete(call) for call in one["tool_calls"]]}
        if one.get("tool_calls")
        else one
        for one in messages
    ]


def _complete(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call["function"]
    text = function["arguments"]
    if not text.startswith("{") or _read(text, is_partial=False) is not None:
        return call
    # Each beginning of a readable text can be read, so the longest one is found by halves.
    shortest, longest = 1, len(text)
    while shortest < longest:
        middle = (shortest + longest + 1) // 2
        if _read(text[:middle], is_partial=True) is None:
            longest = middle - 1
        else:
            shortest = middle
    return {**call, "function": {**function, "arguments": _read(text[:shortest], is_partial=True)}}


def _read(text: str, *, is_partial: bool) -> Any:
    """Return what a JSON text describes, which may be cut off; `None` if it is no JSON."""
    try:
        return pydantic_core.from_json(
            text, allow_partial="trailing-strings" if is_partial else False, allow_inf_nan=False
        )
    except ValueError:
        return None
