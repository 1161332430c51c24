"""Options about what a chat offers to the model: tools, and whether it thinks."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from glm_runtime.cli.options import gather
from glm_runtime.errors import PromptError
from glm_runtime.text.chat_messages import ChatOptions

_Command = TypeVar("_Command", bound=Callable[..., object])


@dataclass(frozen=True)
class ChatChoices:
    """What the user wrote; `None` where nothing."""

    tools: Path | None
    thinking: bool | None

    def read(self) -> ChatOptions:
        """Read the file of tools.

        Raises:
            PromptError: the file is not a JSON list of tools, or a tool has no name.
            OSError: it cannot be read.
        """
        tools = () if self.tools is None else tuple(_read_tools(self.tools))
        return ChatOptions(tools, self.thinking)


def chat_choices(command: _Command) -> _Command:
    """Add the options of `ChatChoices`, as one argument `choices`."""
    options = (
        click.option(
            "--tools",
            type=click.Path(path_type=Path),
            help="JSON file: a list of tools, as OpenAI writes them.",
        ),
        click.option(
            "--thinking/--no-thinking",
            default=None,
            help="For templates that know enable_thinking; by default theirs.",
        ),
    )
    return gather(options, ChatChoices, "choices", command)


def _read_tools(path: Path) -> list[dict[str, object]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one
        raise PromptError(
            f"{path} is not JSON ({error}); write a list of tools, as OpenAI's clients do."
        ) from error
    tools = content if isinstance(content, list) else [content]
    if not all(isinstance(tool, dict) for tool in tools):
        raise PromptError(
            f"{path} holds something that is no JSON object where tools are expected; write "
            '[{"type": "function", "function": {"name": ..., "parameters": ...}}].'
        )
    return tools
