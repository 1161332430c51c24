"""`glm-run chat --tools` with MCP servers: shows calls, asks for permission, shows results.

The loop itself is the package `glm_agents`.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glm_runtime.answering.settings import Piece
from glm_runtime.cli.options import ChatInputs, Command, count_option, gather, read_file
from glm_runtime.cli.progress import say
from glm_runtime.cli.terminal import make_harmless
from glm_runtime.conversation import Conversation
from glm_runtime.errors import MissingDependencyError
from glm_runtime.model import Model
from glm_runtime.text.chat_messages import Tool
from glm_runtime.text.tool_calls import ToolCall

if TYPE_CHECKING:
    from glm_agents.configuration import AgentConfiguration
    from glm_agents.limits import AgentLimits
    from glm_agents.loop import Tools
    from glm_agents.offers import ToolOffer

_SHOWN_CHARACTERS = 2000
_QUESTION = "Run it? [y]es, [a]lways for this tool, [n]o"


@dataclass(frozen=True)
class AgentOptions:
    """How calls of MCP servers' tools run.

    Attributes:
        is_allowed: whether calls run without a question to the user.
        max_turns: largest number of answers that call tools; `None` takes the default.
    """

    is_allowed: bool
    max_turns: int | None

    def refuse_use(self) -> None:
        """Refuse the options where no MCP server is configured.

        Raises:
            click.UsageError: an option was given.
        """
        given = {"--yes": self.is_allowed, "--max-turns": self.max_turns is not None}
        for flag in (name for name, is_given in given.items() if is_given):
            raise click.UsageError(
                f"{flag} has no effect without --tools and a file with mcpServers; leave it out."
            )


def agent_options(command: Command) -> Command:
    """Add the options of `AgentOptions`, as one argument `agent`."""
    options = (
        click.option(
            "--yes",
            "is_allowed",
            is_flag=True,
            help="Run every call of the MCP servers' tools without asking.",
        ),
        count_option(
            "--max-turns", "Largest number of answers in a row that call tools.  [default: 35]"
        ),
    )
    return gather("agent", options, lambda values: AgentOptions(**values), command)


class AgentTools:
    """The tools of a configuration, and the loop over them in the terminal."""

    def __init__(self, tools: "Tools", limits: "AgentLimits", *, is_allowed: bool) -> None:
        self._tools = tools
        self._limits = limits
        self._is_allowed = is_allowed
        self._always: set[str] = set()

    def declare(self, model: Model) -> tuple[Tool, ...]:
        """Return the tools as a model's conversation declares them."""
        from glm_agents.strategy import choose_strategy  # noqa: PLC0415  # optional

        strategy = choose_strategy(model.chat_template, self._tools.toolbox.offers)
        _warn(strategy.notes)
        return strategy.tools

    def follow(
        self, conversation: Conversation, pieces: Generator[Piece, None, None]
    ) -> Generator[Piece, None, None]:
        """Yield the pieces of an answer and of those after its calls; show calls and results."""
        from glm_agents.loop import Agent, LimitReached, Returned  # noqa: PLC0415  # optional

        approve = None if self._is_allowed else self._ask
        agent = Agent(conversation, self._tools, self._limits, approve)
        for event in agent.follow(pieces):
            if isinstance(event, Piece):
                yield dataclasses.replace(event, tool_calls=())
            elif isinstance(event, ToolCall):
                _show(f"\n{event.name}({event.arguments})")
            elif isinstance(event, Returned):
                _show(f"-> {_shorten(event.observation.text)}")
            elif isinstance(event, LimitReached):
                _show(f"({event.note})")

    def _ask(self, offer: "ToolOffer") -> bool:
        if offer.name in self._always:
            return True
        try:
            answer = click.prompt(_QUESTION, default="n", show_default=False, err=True)
        except click.Abort as error:
            raise KeyboardInterrupt from error
        answer = answer.strip().lower()
        if answer in ("a", "always"):
            self._always.add(offer.name)
        return answer in ("y", "yes", "a", "always")


@contextlib.contextmanager
def open_agent_tools(inputs: ChatInputs, options: AgentOptions) -> Iterator[AgentTools | None]:
    """Start the MCP servers of the file of `--tools`; `None` if it is a list of tools.

    Raises:
        AgentError: the file is wrong, or there is no tool to offer.
        MissingDependencyError: the packages of the extra `agents` are missing.
        click.UsageError: nobody could be asked, or an option has no effect.
    """
    if inputs.tools is None or not inputs.has_servers:
        options.refuse_use()
        yield None
        return
    if not options.is_allowed and not sys.stdin.isatty():
        raise click.UsageError(
            "nobody can be asked whether calls may run, because stdin is no terminal; add --yes."
        )
    configuration, limits = read_agents(inputs.tools, options.max_turns)
    from glm_agents.loop import open_tools  # noqa: PLC0415  # optional

    with open_tools(configuration, limits) as tools:
        _warn(tools.toolbox.notes)
        names = ", ".join(offer.name for offer in tools.toolbox.offers)
        say(f"tools: {make_harmless(names, sys.stderr)}")
        yield AgentTools(tools, limits, is_allowed=options.is_allowed)


def read_agents(path: Path, max_turns: int | None) -> "tuple[AgentConfiguration, AgentLimits]":
    """Read a file of MCP servers, and make the limits of the loop.

    Raises:
        AgentError: the file is wrong.
        MissingDependencyError: the packages of the extra `agents` are missing.
    """
    try:
        import glm_agents.toolbox  # noqa: F401, PLC0415  # needs the SDK
        from glm_agents.configuration import read_configuration  # noqa: PLC0415
        from glm_agents.limits import DEFAULT_TURNS, AgentLimits  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            f"the packages of agents cannot be imported ({error}); install them with "
            "`pip install mcp`."
        ) from error
    configuration = read_configuration(read_file(path), str(path))
    return configuration, AgentLimits(max_turns=max_turns or DEFAULT_TURNS)


def _warn(notes: Iterable[str]) -> None:
    for note in notes:
        click.echo(f"warning: {make_harmless(note, sys.stderr)}", err=True)


def _show(text: str) -> None:
    click.secho(make_harmless(text, sys.stderr), err=True, dim=True)


def _shorten(text: str) -> str:
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}... ({len(text)} characters)"
