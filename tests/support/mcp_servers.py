"""MCP servers for tests, made with the official SDK: `python mcp_servers.py NAME [PORT]`.

Without a port a server speaks over stdio, with one over streamable HTTP.
"""

import asyncio
import os
import sys
import time
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.stdio import stdio_server
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool

VERSES = {
    "Micah 6:8": "He hath shewed thee, O man, what is good",
    "Psalm 23:1": "The LORD is my shepherd; I shall not want",
}
POEM = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"


def make_bible() -> MCPServer:
    """The tools that the sample model knows."""
    server = MCPServer("bible")

    @server.tool(description="Look up a Bible verse.")
    def get_verse(reference: str) -> str:
        return f"{VERSES[reference]}."

    @server.tool(description="Look up a Chinese poem.")
    def get_poem(title: str, author: str = "") -> str:
        return POEM

    return server


def make_empty() -> MCPServer:
    """A tool that finds nothing; the sample model then calls it once more."""
    server = MCPServer("empty")

    @server.tool(description="Look up a Bible verse.")
    def get_verse(reference: str) -> str:
        return "none"

    return server


def make_endless() -> MCPServer:
    """A call that never returns, and one that waits for what happens to others."""
    server = MCPServer("endless")
    events = {name: asyncio.Semaphore(0) for name in ("waited for", "begun", "ended")}

    @server.tool()
    async def hang() -> str:
        events["begun"].release()
        try:
            await asyncio.sleep(3600)
        finally:
            events["ended"].release()
        return "never"

    @server.tool()
    async def wait_for(event: str) -> str:
        if event == "ended":
            events["waited for"].release()
        await events[event].acquire()
        return event

    return server


def make_odd() -> MCPServer:
    """Tools that behave badly."""
    server = MCPServer("odd")

    @server.tool()
    async def hang() -> str:
        await asyncio.sleep(3600)
        return "never"

    @server.tool()
    def freeze() -> str:
        time.sleep(3600)
        return "never"

    @server.tool()
    def die() -> str:
        os._exit(7)

    @server.tool()
    def flood() -> str:
        return "y" * 10_000_000

    @server.tool()
    def fail() -> str:
        raise ToolError("no luck today")

    @server.tool(structured_output=False)
    def draw() -> list[Any]:
        return ["a picture:", Image(data=b"\x89PNG", format="png")]

    @server.tool()
    def get_verse(reference: str) -> str:
        return "of the odd server"

    @server.tool()
    def count_calls() -> str:
        calls.append(1)
        return str(len(calls))

    calls: list[int] = []
    return server


def make_slow() -> MCPServer:
    """A tool that the sample model calls, and that never answers."""
    server = MCPServer("slow")

    @server.tool(description="Look up a Bible verse.")
    async def get_verse(reference: str) -> str:
        await asyncio.sleep(3600)
        return "never"

    return server


def make_web() -> MCPServer:
    """The tools that GLM-Z1-Rumination's template lists, and one more."""
    server = MCPServer("web")

    @server.tool()
    def search(query: str) -> list[dict[str, str]]:
        return [
            {"title": "A", "url": "https://a", "snippet": f"about {query}"},
            {"title": "B", "url": "https://b", "snippet": "more"},
        ]

    @server.tool()
    def get_time() -> str:
        return "noon"

    return server


def make_many() -> Server[Any]:
    """A thousand tools, of which some cannot be offered, in pages of a hundred."""

    async def list_tools(_context: Any, params: Any) -> ListToolsResult:
        first = int(params.cursor) if params is not None and params.cursor else 0
        deep: dict[str, Any] = {"type": "object"}
        for _ in range(60):
            deep = {"type": "object", "properties": {"inner": deep}}
        schemas = {3: deep, 4: {"type": "object", "description": "y" * 100_000}}
        names = {5: "two\nlines", 6: "tool_2"}
        tools = [
            Tool(
                name=names.get(i, f"tool_{i}"),
                description="z" * 10_000,
                input_schema=schemas.get(i, {"type": "object"}),
            )
            for i in range(first, first + 100)
        ]
        following = first + 100
        return ListToolsResult(
            tools=tools, next_cursor=str(following) if following < 1000 else None
        )

    return Server("many", on_list_tools=list_tools)


def make_hostile() -> Server[Any]:
    """A schema of results whose regular expression takes years, and pages without an end."""

    async def list_tools(_context: Any, params: Any) -> ListToolsResult:
        slow = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
        tool = Tool(name="slow", input_schema={"type": "object"}, output_schema=slow)
        return ListToolsResult(tools=[tool])

    async def call_tool(_context: Any, params: Any) -> CallToolResult:
        content = [TextContent(type="text", text="done")]
        return CallToolResult(content=content, structured_content={"a": "a" * 60 + "!"})

    return Server("hostile", on_list_tools=list_tools, on_call_tool=call_tool)


MAKERS = {
    "bible": make_bible,
    "empty": make_empty,
    "endless": make_endless,
    "odd": make_odd,
    "slow": make_slow,
    "web": make_web,
    "many": make_many,
    "hostile": make_hostile,
}


async def run_low_level(server: Server[Any]) -> None:
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


def main(name: str, port: int | None = None) -> None:
    server = MAKERS[name]()
    if isinstance(server, Server):
        anyio.run(run_low_level, server)
    elif port is None:
        server.run("stdio")
    else:
        server.run("streamable-http", port=port)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
