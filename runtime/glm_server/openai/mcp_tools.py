"""The operator's tools that one response may use, and the calls that a client has approved."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from glm_agents.errors import AgentError
from glm_agents.offers import ToolOffer
from glm_server.errors import ApiError
from glm_server.ids import make_id
from glm_server.openai.mcp_schema import (
    InputApproval,
    InputApprovalRequest,
    InputMcpCall,
    ListedTool,
    McpError,
    McpTool,
    OutputMcpCall,
    OutputToolList,
)
from glm_server.openai.responses_schema import (
    FunctionTool,
    InputItem,
    ResponsePromptFields,
)
from glm_server.operator_tools import OperatorTools
from glm_server.services import Services

if TYPE_CHECKING:  # it needs the extra `agents`
    from glm_agents.toolbox import Toolbox

_DENIED = "Error: the user does not allow this call."


@dataclass(frozen=True)
class McpTools:
    """The operator's tools of one response.

    Attributes:
        toolbox: runs the calls; `None` if the operator has no servers.
        asked: what the client asked for, by the labels of the servers.
        offers: the tools that the model may call.
        known: names by which the model calls tools, by server and tool; of all servers.
    """

    toolbox: "Toolbox | None" = None
    asked: Mapping[str, McpTool] = field(default_factory=dict)
    offers: Sequence[ToolOffer] = ()
    known: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def find(self, name: str) -> ToolOffer | None:
        """Return the tool that the model calls by a name; `None` if it is a client's."""
        return next((offer for offer in self.offers if offer.name == name), None)

    async def run(self, name: str, arguments: str, seconds: float) -> tuple[str, bool]:
        """Run a call of the model; return its result and whether it failed."""
        if self.toolbox is None:
            return f"Error: there is no tool {name!r:.80}.", True
        observation = await self.toolbox.call(name, arguments, seconds)
        return observation.text, observation.is_error

    def needs_approval(self, offer: ToolOffer) -> bool:
        """Return whether calls of a tool need an approval."""
        return self.asked[offer.server].needs_approval(offer.tool)

    def list_servers(self) -> Iterator[OutputToolList]:
        """Return the items that list the tools of each server."""
        for label in self.asked:
            tools = [
                ListedTool(
                    name=offer.tool,
                    description=offer.description,
                    input_schema=dict(offer.parameters),
                )
                for offer in self.offers
                if offer.server == label
            ]
            yield OutputToolList(id=make_id("mcpl"), server_label=label, tools=tools)


async def choose_tools(services: Services, body: ResponsePromptFields) -> McpTools:
    """Return the operator's tools that a body asks for.

    Raises:
        ApiError: there is no such server, or two tools have one name.
    """
    toolbox = None
    if services.tools is not None and _is_asked(body):
        toolbox = await _wait(services.tools)
    all_offers = () if toolbox is None else toolbox.offers
    labels = {offer.server for offer in all_offers}
    asked: dict[str, McpTool] = {}
    for index, tool in enumerate(body.tools or []):
        if isinstance(tool, McpTool):
            if tool.server_label not in labels or tool.server_label in asked:
                raise _refuse_label(tool.server_label, sorted(labels), index)
            asked[tool.server_label] = tool
    offers = [
        offer
        for offer in all_offers
        if offer.server in asked and asked[offer.server].allows(offer.tool)
    ]
    functions = {tool.name for tool in body.tools or [] if isinstance(tool, FunctionTool)}
    doubled = next((offer.name for offer in offers if offer.name in functions), None)
    if doubled is not None:
        raise ApiError(
            HTTPStatus.BAD_REQUEST,
            f"a function and a tool of a server have the name {doubled!r}; rename the function.",
            code="invalid_value",
            param="tools",
        )
    known = {(offer.server, offer.tool): offer.name for offer in all_offers}
    offers = [offer for offer in offers if body.allows(offer.server, offer.tool)]
    return McpTools(toolbox, asked, offers, known)


def _is_asked(body: ResponsePromptFields) -> bool:
    """Return whether a body has to do with MCP servers; others do not wait for their start."""
    items = [] if isinstance(body.input, str) else body.input
    return any(isinstance(tool, McpTool) for tool in body.tools or []) or any(
        isinstance(item, InputMcpCall | InputApprovalRequest) for item in items
    )


async def _wait(tools: OperatorTools) -> "Toolbox":
    try:
        return await tools.wait()
    except AgentError as error:
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error


def complete(item: OutputMcpCall, text: str, *, is_error: bool) -> None:
    """Put the result of a call into its item."""
    item.status = "failed" if is_error else "completed"
    item.output = None if is_error else text
    item.error = McpError(content=text) if is_error else None


async def run_approved(
    services: Services, tools: McpTools, items: Sequence[InputItem]
) -> tuple[list[InputItem], list[OutputMcpCall]]:
    """Run the calls that a client has approved.

    Nothing is stored: the client sends back the request for an approval with its decision. A call
    that ran already stands in the input as `mcp_call`.

    Returns:
        the items, with calls and results in place of requests and decisions, and the new items.

    Raises:
        ApiError: a request has no decision, a decision no request, or the tool is not offered.
    """
    decisions = {one.approval_request_id: one for one in items if isinstance(one, InputApproval)}
    requests = {one.id for one in items if isinstance(one, InputApprovalRequest)}
    done = {one.approval_request_id for one in items if isinstance(one, InputMcpCall)}
    for stray in decisions.keys() - requests:
        raise _refuse_input(f"there is no mcp_approval_request with the id {stray!r:.80}")
    found: list[InputItem] = []
    new: list[OutputMcpCall] = []
    for item in items:
        if isinstance(item, InputApprovalRequest) and item.id not in done:
            found.append(await _decide(services, tools, item, decisions.get(item.id), new))
        elif not isinstance(item, InputApprovalRequest | InputApproval):
            found.append(item)
    return found, new


async def _decide(
    services: Services,
    tools: McpTools,
    request: InputApprovalRequest,
    decision: InputApproval | None,
    new: list[OutputMcpCall],
) -> InputMcpCall:
    """Return the call of a request with its result; add it to `new` if it ran."""
    if decision is None:
        raise _refuse_input(f"there is no mcp_approval_response for {request.id!r:.80}")
    call = InputMcpCall(
        type="mcp_call",
        server_label=request.server_label,
        name=request.name,
        arguments=request.arguments,
    )
    if not decision.approve:
        call.output = f"{_DENIED} {decision.reason or ''}".strip()
        return call
    name = tools.known.get((request.server_label, request.name), "")
    if tools.find(name) is None:
        raise _refuse_input(
            f"the tool {request.name!r:.80} of {request.server_label!r:.80} is not in tools"
        )
    item = OutputMcpCall(
        id=make_id("mcp"),
        server_label=request.server_label,
        name=request.name,
        arguments=request.arguments,
        approval_request_id=request.id,
    )
    seconds = services.settings.agent_limits.call_seconds
    text, is_error = await tools.run(name, request.arguments, seconds)
    complete(item, text, is_error=is_error)
    new.append(item)
    call.output = text
    return call


def _refuse_input(reason: str) -> ApiError:
    return ApiError(
        HTTPStatus.BAD_REQUEST,
        f"{reason}; send the items of the earlier response, and one decision for each request.",
        code="invalid_value",
        param="input",
    )


def _refuse_label(label: str, labels: Sequence[str], index: int) -> ApiError:
    if label in labels:
        reason = f"two tools have the server_label {label!r}; write one with all its allowed_tools"
    elif labels:
        reason = f"there is no MCP server {label!r}; this server has {', '.join(labels)}"
    else:
        reason = "this server has no MCP servers; its operator starts it with --tools"
    return ApiError(
        HTTPStatus.BAD_REQUEST,
        f"{reason}.",
        code="invalid_value",
        param=f"tools[{index}].server_label",
    )
