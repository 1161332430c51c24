"""Servers of `glm-run` with the MCP servers of `mcp_servers.py`, and requests for their tools."""

import json
import sys
from pathlib import Path
from typing import Any

from support.server_bodies import typed

PROGRAM = Path(__file__).parent / "mcp_servers.py"
OPTIONS = ("--threads", 1, "--no-huge-pages")
GREEDY: Any = {"model": "sample", "temperature": 0, "max_output_tokens": 200}
NEVER: Any = {"type": "mcp", "server_label": "bible", "require_approval": "never"}
ASK: Any = {"type": "mcp", "server_label": "bible"}
APPROVED: Any = typed("mcp_approval_response", approval_request_id="r1", approve=True)


def configure(folder: Path, *names: str) -> Path:
    """Write the file for `--tools` that names some of the MCP servers."""
    entries = {name: {"command": sys.executable, "args": [str(PROGRAM), name]} for name in names}
    path = folder / "agent.json"
    path.write_text(json.dumps({"mcpServers": entries}))
    return path


def approve(label: str, name: str, arguments: str = "{}") -> list[Any]:
    """The input of a request that runs one call of a tool before the model answers."""
    request = typed(
        "mcp_approval_request", id="r1", server_label=label, name=name, arguments=arguments
    )
    return [{"role": "user", "content": "?"}, request, APPROVED]
