"""What an MCP server declares, made small enough for a prompt; a server may be a stranger's."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glm_agents.limits import (
    MAX_DESCRIPTION_CHARACTERS,
    MAX_SCHEMA_CHARACTERS,
    MAX_SCHEMA_DEPTH,
)
from glm_agents.texts import cut_text

# The names that the Model Context Protocol allows.
_NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")


@dataclass(frozen=True)
class ToolOffer:
    """A tool that the model may call.

    Attributes:
        name: name by which the model calls it; no two tools share one.
        server: name of its MCP server; `python` for the built-in tool.
        tool: its name at the server.
        description: what it does, in the server's words.
        parameters: JSON schema of its arguments.
    """

    name: str
    server: str
    tool: str
    description: str
    parameters: Mapping[str, Any]

    def describe(self) -> dict[str, object]:
        """Return the tool in OpenAI's format, as `ChatOptions.tools` takes it."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class Declared:
    """A tool as a server declares it, before it is checked.

    Attributes:
        name: its name at the server.
        description: what it does.
        parameters: JSON schema of its arguments.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]


def check_tools(server: str, declared: Sequence[Declared]) -> tuple[list[ToolOffer], list[str]]:
    """Return the tools of a server that can be offered, and a sentence for each other one."""
    offers: dict[str, ToolOffer] = {}
    notes: list[str] = []
    for tool in declared:
        fault = _find_fault(tool, offers)
        if fault is not None:
            notes.append(f"the tool {tool.name!r:.80} of {server} is left out, because {fault}.")
            continue
        description = cut_text(tool.description, MAX_DESCRIPTION_CHARACTERS)
        offers[tool.name] = ToolOffer(tool.name, server, tool.name, description, tool.parameters)
    return list(offers.values()), notes


def name_apart(offers: Sequence[ToolOffer]) -> list[ToolOffer]:
    """Return the tools with names that differ.

    A name that only one server has stays as it is; a name of several servers becomes `server.tool`
    for each of them. Server names have no dot, so all names of this form differ.
    """
    names = [offer.name for offer in offers]
    while len(set(names)) < len(names):
        names = [
            f"{offer.server}.{offer.tool}" if names.count(name) > 1 else name
            for offer, name in zip(offers, names, strict=True)
        ]
    return [
        ToolOffer(name, offer.server, offer.tool, offer.description, offer.parameters)
        for offer, name in zip(offers, names, strict=True)
    ]


def _find_fault(tool: Declared, offers: Mapping[str, ToolOffer]) -> str | None:
    if not _NAME.fullmatch(tool.name):
        return "its name has other characters than letters, digits, _, -, . and /"
    if tool.name in offers:
        return "another tool of the server has this name"
    if tool.parameters.get("type", "object") != "object":
        return "its schema is not that of an object"
    if _measure_depth(tool.parameters, MAX_SCHEMA_DEPTH) > MAX_SCHEMA_DEPTH:
        return f"its schema is nested deeper than {MAX_SCHEMA_DEPTH} levels"
    size = len(json.dumps(tool.parameters, ensure_ascii=False))
    if size > MAX_SCHEMA_CHARACTERS:
        return f"its schema has {size} characters, more than {MAX_SCHEMA_CHARACTERS}"
    return None


def _measure_depth(value: object, limit: int) -> int:
    """Return how deep a JSON value is nested, or `limit` + 1 if it is deeper."""
    if limit < 0:
        return 1
    if isinstance(value, Mapping):
        inner = list(value.values())
    elif isinstance(value, list):
        inner = value
    else:
        return 0
    return 1 + max((_measure_depth(one, limit - 1) for one in inner), default=0)
