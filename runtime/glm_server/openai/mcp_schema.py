"""The parts of `POST /v1/responses` about tools of MCP servers.

Clients name a server of the operator by its label. What would make this server connect to an
address of the client's choice is refused.

Source: openai-python, `types/responses/tool_param.py` and `response_input_item_param.py`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from glm_server.schema import Body, DirectCallers, Reply

ServerLabel = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
McpName = Annotated[str, Field(min_length=1, max_length=128)]
McpStatus = Literal["in_progress", "completed", "incomplete", "calling", "failed"]


class ToolFilter(Body):
    """Some of a server's tools."""

    tool_names: list[McpName]


class ApprovalFilter(Body):
    """Which tools need an approval; those that are in neither list do."""

    always: ToolFilter | None = None
    never: ToolFilter | None = None


class McpTool(Body):
    """The tools of one of the operator's MCP servers."""

    type: Literal["mcp"]
    server_label: ServerLabel
    server_description: str | None = Field(None, description="Has no effect.")
    allowed_tools: list[McpName] | ToolFilter | None = None
    require_approval: Literal["always", "never"] | ApprovalFilter | None = Field(
        None, description="`always` unless it is given."
    )
    allowed_callers: DirectCallers | None = None
    defer_loading: Literal[False] | None = None

    def allows(self, tool: str) -> bool:
        """Return whether a tool of the server is offered."""
        chosen = self.allowed_tools
        if chosen is None:
            return True
        return tool in (chosen.tool_names if isinstance(chosen, ToolFilter) else chosen)

    def needs_approval(self, tool: str) -> bool:
        """Return whether a call of a tool needs an approval."""
        if not isinstance(self.require_approval, ApprovalFilter):
            return self.require_approval != "never"
        never = self.require_approval.never
        return never is None or tool not in never.tool_names


class InputToolList(Body):
    """The tools of a server, as an earlier response listed them; they are not read again."""

    type: Literal["mcp_list_tools"]
    server_label: str
    tools: list[Any]
    id: str | None = None
    error: str | None = None


class InputMcpCall(Body):
    """A call of a server's tool in an earlier answer, and its result."""

    type: Literal["mcp_call"]
    server_label: str
    name: McpName
    arguments: str
    output: str | None = None
    error: dict[str, Any] | None = None
    id: str | None = None
    approval_request_id: str | None = None
    status: McpStatus | None = None


class InputApprovalRequest(Body):
    """A call that waited for an approval at the end of an earlier answer."""

    type: Literal["mcp_approval_request"]
    id: str
    server_label: str
    name: McpName
    arguments: str


class InputApproval(Body):
    """Whether a call may run."""

    type: Literal["mcp_approval_response"]
    approval_request_id: str
    approve: bool
    reason: str | None = None
    id: str | None = None


class ListedTool(Reply):
    """A tool of a server."""

    name: str
    description: str
    input_schema: dict[str, Any]
    annotations: None = None


class OutputToolList(Reply):
    """The tools of a server that the model may call."""

    id: str
    type: Literal["mcp_list_tools"] = "mcp_list_tools"
    server_label: str
    tools: list[ListedTool]
    error: str | None = None


class McpError(Reply):
    """Why a call failed."""

    type: Literal["mcp_tool_execution_error"] = "mcp_tool_execution_error"
    content: str


class OutputMcpCall(Reply):
    """A call of a server's tool, and its result."""

    id: str
    type: Literal["mcp_call"] = "mcp_call"
    status: McpStatus = "in_progress"
    server_label: str
    name: str
    arguments: str = ""
    output: str | None = None
    error: McpError | None = None
    approval_request_id: str | None = None


class OutputApprovalRequest(Reply):
    """A call that waits for an approval."""

    id: str
    type: Literal["mcp_approval_request"] = "mcp_approval_request"
    server_label: str
    name: str
    arguments: str = ""
