"""The result of a call, as the model reads it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import mcp_types

from glm_agents.texts import cut_text


@dataclass(frozen=True)
class Observation:
    """What a call gave.

    Attributes:
        text: the result, or why there is none.
        is_error: whether the call failed; the text then says why.
    """

    text: str
    is_error: bool = False


def fail(reason: str) -> Observation:
    """Return the observation of a call that failed."""
    return Observation(f"Error: {reason}", is_error=True)


def read_result(result: mcp_types.CallToolResult, limit: int) -> Observation:
    """Return a server's result as text of at most `limit` characters.

    Pictures and sounds become a note, because GLM's text models cannot see them.
    """
    text = _read_records(result.structured_content) or _join(result.content)
    if not text and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False)
    return Observation(cut_text(text, limit), result.is_error)


def _read_records(structured: object) -> str:
    """Return a list of objects as JSON, which the SDK would write as objects without commas."""
    records = structured.get("result") if isinstance(structured, dict) else None
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        return ""
    return json.dumps(records, ensure_ascii=False)


def _join(content: Sequence[mcp_types.ContentBlock]) -> str:
    return "\n".join(map(_read_block, content))


def _read_block(block: mcp_types.ContentBlock) -> str:
    if isinstance(block, mcp_types.TextContent):
        return block.text
    if isinstance(block, mcp_types.ResourceLink):
        return f"[link: {block.name} {block.uri}]"
    if isinstance(block, mcp_types.EmbeddedResource):
        resource = block.resource
        if isinstance(resource, mcp_types.TextResourceContents):
            return resource.text
        return f"[data that cannot be shown: {resource.uri}]"
    return f"[{block.type} that cannot be shown: {block.mime_type}]"
