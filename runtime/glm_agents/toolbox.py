"""All tools that the model may call: those of MCP servers, and the built-in `python`.

async with open_toolbox(configuration, limits) as toolbox:
    observation = await toolbox.call("get_verse", '{"reference": "Micah 6:8"}', seconds=60)
"""

import contextlib
import json
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from glm_agents.configuration import PYTHON_KEY, AgentConfiguration
from glm_agents.connection import Connection
from glm_agents.errors import AgentError
from glm_agents.limits import MAX_TOOLS, AgentLimits
from glm_agents.observation import Observation, fail
from glm_agents.offers import Declared, ToolOffer, check_tools, name_apart
from glm_agents.sandbox import Sandbox, open_sandbox

_CODE = "code"
_PYTHON = ToolOffer(
    PYTHON_KEY,
    PYTHON_KEY,
    PYTHON_KEY,
    "Run Python code and return what it prints. Each call starts anew, in an empty folder without "
    "network.",
    {
        "type": "object",
        "properties": {_CODE: {"type": "string", "description": "Python code"}},
        "required": [_CODE],
    },
)
# The SDK logs what servers send; a handler keeps that off stderr.
_SDK_LOGGERS = ("mcp", "client")


@dataclass(frozen=True)
class Toolbox:
    """The tools of all servers that could be started.

    Attributes:
        offers: all tools, by names that differ.
        notes: sentences about servers and tools that are left out.
    """

    offers: tuple[ToolOffer, ...]
    notes: tuple[str, ...]
    _limits: AgentLimits
    _connections: Mapping[str, Connection] = field(repr=False)
    _sandbox: Sandbox | None = field(repr=False)

    def find(self, name: str) -> ToolOffer | None:
        """Return the tool with a name; `None` if there is none."""
        return next((offer for offer in self.offers if offer.name == name), None)

    async def call(self, name: str, arguments: str, seconds: float) -> Observation:
        """Run a call of the model; whatever is wrong with it is an observation.

        Args:
            name: name of a tool.
            arguments: JSON object.
            seconds: time for the call, if the limit for one call is not less.
        """
        offer = self.find(name)
        if offer is None:
            names = ", ".join(one.name for one in self.offers)
            return fail(f"there is no tool {name!r:.80}; the tools are {names}.")
        found = _read_arguments(arguments)
        if found is None:
            return fail("the arguments are no JSON object; write one that matches the parameters.")
        seconds = min(seconds, self._limits.call_seconds)
        if offer.server == PYTHON_KEY and self._sandbox is not None:
            code = found.get(_CODE)
            if not isinstance(code, str):
                return fail(f"the argument {_CODE} is no text; write Python code.")
            return await self._sandbox.run(code, seconds, self._limits.result_characters)
        return await self._connections[offer.server].call(offer.tool, found, seconds)


@contextlib.asynccontextmanager
async def open_toolbox(
    configuration: AgentConfiguration, limits: AgentLimits
) -> AsyncIterator[Toolbox]:
    """Start all servers at once and list their tools; the servers end with the block.

    A server that does not start is left out with a note.

    Raises:
        AgentError: there is no tool at all, or the sandbox of `python` does not work here.
    """
    _silence_sdk()
    sandbox = None if configuration.python is None else await open_sandbox(configuration.python)
    async with _group() as tasks:
        connections = {
            server.name: Connection(server, limits, tasks) for server in configuration.servers
        }
        found = await _list_all(connections.values())
        try:
            yield _assemble(found, connections, sandbox, limits)
        finally:
            tasks.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def _group() -> AsyncIterator[TaskGroup]:
    """Open a task group whose block raises its own errors, and not groups of them."""
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None  # connections raise nothing, so it is the block's


Listing = Mapping[str, Sequence[Declared] | AgentError]


async def _list_all(connections: Iterable[Connection]) -> Listing:
    """Return what each server declares, or why it cannot be used."""
    found: dict[str, Sequence[Declared] | AgentError] = {}

    async def list_one(connection: Connection) -> None:
        try:
            found[connection.server.name] = await connection.list_tools()
        except AgentError as error:
            found[connection.server.name] = error

    async with anyio.create_task_group() as tasks:
        for connection in connections:
            tasks.start_soon(list_one, connection)
    return found


def _assemble(
    found: Listing,
    connections: Mapping[str, Connection],
    sandbox: Sandbox | None,
    limits: AgentLimits,
) -> Toolbox:
    offers = [] if sandbox is None else [_PYTHON]
    notes: list[str] = []
    for server in connections:
        declared = found[server]
        if isinstance(declared, AgentError):
            notes.append(str(declared))
            continue
        good, faults = check_tools(server, declared)
        offers += good
        notes += faults
    if len(offers) > MAX_TOOLS:
        notes.append(
            f"there are {len(offers)} tools, of which the first {MAX_TOOLS} are offered; "
            "leave out servers."
        )
    if not offers:
        raise AgentError(" ".join(["there is no tool to offer; check the configuration.", *notes]))
    chosen = tuple(name_apart(offers)[:MAX_TOOLS])
    return Toolbox(chosen, tuple(notes), limits, connections, sandbox)


def _read_arguments(arguments: str) -> dict[str, object] | None:
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _silence_sdk() -> None:
    for name in _SDK_LOGGERS:
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
