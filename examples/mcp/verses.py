"""An MCP server with one tool, made with the official SDK (`pip install mcp`).

An MCP host starts it and speaks to it over stdin and stdout; see `agent.json`.
"""

from mcp.server import MCPServer

VERSES = {
    "Micah 6:8": "He hath shewed thee, O man, what is good.",
    "Psalm 23:1": "The LORD is my shepherd; I shall not want.",
}
server = MCPServer("verses")


@server.tool(description="Look up a Bible verse.")
def get_verse(reference: str) -> str:
    """Return the text of a verse."""
    return VERSES.get(reference, f"Error: no verse {reference!r}.")


if __name__ == "__main__":
    server.run("stdio")
