"""The tools of the operator's MCP servers, which run as long as the server."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from glm_agents.configuration import AgentConfiguration
from glm_agents.errors import AgentError
from glm_agents.limits import AgentLimits
from glm_runtime.errors import to_printable

if TYPE_CHECKING:  # it needs the extra `agents`
    from glm_agents.toolbox import Toolbox

_LOG = logging.getLogger("glm_server")


class OperatorTools:
    """Starts the operator's MCP servers once, and lends their tools to requests."""

    def __init__(self, configuration: AgentConfiguration, limits: AgentLimits) -> None:
        """Remember what to start."""
        self._configuration = configuration
        self._limits = limits
        self._is_open = asyncio.Event()
        self._is_closing = asyncio.Event()
        self._toolbox: Toolbox | None = None
        self._failure: AgentError | None = None

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Start the servers in the background; they end with the block."""
        task = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            self._is_closing.set()
            await asyncio.gather(task, return_exceptions=True)

    async def wait(self) -> "Toolbox":
        """Return the tools, once the servers have started.

        Raises:
            AgentError: there is no tool at all, or the sandbox of `python` does not work here.
        """
        await self._is_open.wait()
        if self._toolbox is None:
            raise self._failure or AgentError("the MCP servers have ended; start the server again.")
        return self._toolbox

    async def _keep(self) -> None:
        from glm_agents.toolbox import open_toolbox  # noqa: PLC0415  # needs the extra `agents`

        try:
            async with open_toolbox(self._configuration, self._limits) as toolbox:
                for note in toolbox.notes:
                    _LOG.warning("%s", to_printable(note))
                self._toolbox = toolbox
                self._is_open.set()
                await self._is_closing.wait()
        except AgentError as error:
            self._failure = error
        finally:
            self._toolbox = None
            self._is_open.set()
