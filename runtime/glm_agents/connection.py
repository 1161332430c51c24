"""One MCP server: started, asked for its tools, called, and started again when it has ended.

The SDK's client must be opened and closed by the same task, so each connection has a task that
keeps its client open; calls come from other tasks.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
import httpx2
import mcp_types
from anyio.abc import TaskGroup, TaskStatus
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

import glm_runtime
from glm_agents.bounded_http import make_http_client
from glm_agents.configuration import HttpServer, StdioServer
from glm_agents.errors import AgentError
from glm_agents.last_words import LastWords
from glm_agents.limits import MAX_LISTED, AgentLimits
from glm_agents.observation import Observation, fail, read_result
from glm_agents.offers import Declared
from glm_runtime.errors import first_line, to_printable

_LOG = logging.getLogger("glm_agents")
_INFO = mcp_types.Implementation(name="glm-run", version=glm_runtime.__version__)
_LAST_WORDS_SECONDS = 1.0


class Connection:
    """A connection to one MCP server, which may end and begin again."""

    def __init__(
        self, server: StdioServer | HttpServer, limits: AgentLimits, tasks: TaskGroup
    ) -> None:
        """Make a connection that is not open yet; `tasks` keeps it open later."""
        self.server = server
        self._limits = limits
        self._tasks = tasks
        self._lock = anyio.Lock()
        self._client: Client | None = None
        self._ended = anyio.Event()

    async def list_tools(self) -> list[Declared]:
        """Start the server and return what it declares, at most `MAX_LISTED` tools.

        Raises:
            AgentError: it does not start, does not answer in time, or answers nonsense.
        """
        try:
            with anyio.fail_after(self._limits.start_seconds):
                client = await self._require()
                return await _list_tools(client)
        except Exception as error:
            raise AgentError(
                f"the MCP server {self.server.name} cannot be used "
                f"({self._explain(error, self._limits.start_seconds)}); check its entry."
            ) from error

    async def call(self, tool: str, arguments: Mapping[str, Any], seconds: float) -> Observation:
        """Call a tool; whatever goes wrong is an observation. Cancelling cancels the call."""
        try:
            with anyio.fail_after(seconds):
                client = await self._require()
                result = await _call_tool(client, tool, arguments)
        except Exception as error:
            _LOG.debug("a call of %s failed", tool, exc_info=error)
            if _is_end(error):
                self._forget()
            return fail(f"{tool} of {self.server.name}: {self._explain(error, seconds)}.")
        return read_result(result, self._limits.result_characters)

    async def _require(self) -> Client:
        async with self._lock:
            if self._client is None:
                self._ended = anyio.Event()
                self._client = await self._tasks.start(self._keep, self._ended)
            return self._client

    def _forget(self) -> None:
        """Close a client whose server has ended; the next call starts another one."""
        self._client = None
        self._ended.set()

    async def _keep(
        self, ended: anyio.Event, *, task_status: TaskStatus[Client] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Open the client and keep it open until it is no longer used."""
        is_open = False
        try:
            async with _open_transport(self.server) as client:
                is_open = True
                task_status.started(client)
                await ended.wait()
        except Exception as error:
            if not is_open:
                raise
            _LOG.debug("the MCP server %s ended", self.server.name, exc_info=error)
        finally:
            if self._ended is ended:
                self._client = None

    def _explain(self, error: Exception, seconds: float) -> str:
        """Say in a few words why something failed, without what could command a terminal."""
        cause = _find_cause(error)
        if isinstance(cause, TimeoutError):
            return f"it gave no answer in {seconds:g} seconds"
        if isinstance(cause, FileNotFoundError) and isinstance(self.server, StdioServer):
            return f"there is no program {self.server.command}"
        if _is_end(cause) and not isinstance(cause, httpx2.TransportError):
            return "the server ended"
        return to_printable(first_line(cause)).rstrip(".")


@contextlib.asynccontextmanager
async def _open_transport(server: StdioServer | HttpServer) -> AsyncIterator[Client]:
    if isinstance(server, HttpServer):
        async with make_http_client(server.headers) as http:
            transport = streamable_http_client(server.url, http_client=http)
            async with Client(transport, client_info=_INFO, cache=None) as client:
                yield client
        return
    parameters = StdioServerParameters(
        command=server.command,
        args=list(server.args),
        env=dict(server.env),
        cwd=server.cwd,
        encoding_error_handler="replace",
    )
    with LastWords() as words:
        is_open = False
        try:
            transport = stdio_client(parameters, errlog=words.file)
            async with Client(transport, client_info=_INFO, cache=None) as client:
                is_open = True
                yield client
        except Exception as error:
            if is_open or not _is_end(_find_cause(error)):
                raise
            await anyio.to_thread.run_sync(words.wait, _LAST_WORDS_SECONDS)
            said = f": {words.last_line}" if words.last_line else ""
            raise AgentError(f"the program ended at its start{said}") from error


async def _list_tools(client: Client) -> list[Declared]:
    found: list[Declared] = []
    cursor: str | None = None
    while len(found) < MAX_LISTED:
        page = await client.session.list_tools(
            params=mcp_types.PaginatedRequestParams(cursor=cursor)
        )
        found += [Declared(one.name, one.description or "", one.input_schema) for one in page.tools]
        cursor = page.next_cursor
        if cursor is None:
            break
    return found[:MAX_LISTED]


async def _call_tool(
    client: Client, tool: str, arguments: Mapping[str, Any]
) -> mcp_types.CallToolResult:
    """Call a tool without the SDK's check of the result against the server's own schema.

    A stranger's schema may have a regular expression that takes years, in which nothing else runs.
    """
    parameters = mcp_types.CallToolRequestParams(name=tool, arguments=dict(arguments))
    request = mcp_types.CallToolRequest(params=parameters)
    return await client.session.send_request(request, mcp_types.CallToolResult)


def _find_cause(error: BaseException) -> BaseException:
    """Return the first error inside of groups of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _is_end(error: BaseException) -> bool:
    cause = _find_cause(error)
    if isinstance(cause, MCPError):
        return cause.code == mcp_types.CONNECTION_CLOSED
    ends = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)
    return isinstance(cause, (*ends, httpx2.TransportError, ConnectionError))
