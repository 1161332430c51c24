"""Calls of MCP servers' tools that wait for the decision of a client."""

import json
from typing import Any

import openai
import pytest
from openai.types.responses.response_output_item import (
    McpApprovalRequest,
    McpCall,
    McpListTools,
)

from support.mcp_requests import APPROVED, ASK, GREEDY, NEVER
from support.server_bodies import BODIES, RESPONSES, check_refusal, typed
from support.servers import ServerProcess
from support.verses import ASKED_VERSE, VERSE


def test_an_approval_is_asked_for_and_given(operator: openai.OpenAI) -> None:
    """Nothing is stored: the client sends the request back with its decision."""
    first = operator.responses.create(**GREEDY, input=ASKED_VERSE, tools=[ASK])
    listed, request = first.output
    assert isinstance(listed, McpListTools)
    assert isinstance(request, McpApprovalRequest)
    assert json.loads(request.arguments) == {"reference": "Micah 6:8"}
    decision = typed("mcp_approval_response", approval_request_id=request.id, approve=True)
    items: Any = [{"role": "user", "content": ASKED_VERSE}, *first.output, decision]
    second = operator.responses.create(**GREEDY, input=items, tools=[ASK])
    call = second.output[1]
    assert isinstance(call, McpCall)
    assert (call.output, call.approval_request_id) == (VERSE, request.id)
    assert VERSE[:-1] in second.output_text
    at_once = operator.responses.create(**GREEDY, input=ASKED_VERSE, tools=[NEVER])
    assert second.output_text == at_once.output_text
    # Sent back once more, the call is not run again.
    items += [*second.output, {"role": "user", "content": "Hello!"}]
    third = operator.responses.create(**GREEDY, input=items, tools=[ASK])
    assert not any(isinstance(item, McpCall) for item in third.output)
    with operator.responses.stream(**GREEDY, input=items[:4], tools=[ASK]) as stream:
        streamed = stream.get_final_response()
    assert streamed.output_text == second.output_text
    assert [item.type for item in streamed.output] == [item.type for item in second.output]


def test_an_approval_is_denied(operator: openai.OpenAI) -> None:
    first = operator.responses.create(**GREEDY, input=ASKED_VERSE, tools=[ASK])
    request = first.output[1]
    assert isinstance(request, McpApprovalRequest)
    decision = typed(
        "mcp_approval_response", approval_request_id=request.id, approve=False, reason="Not now."
    )
    items: Any = [{"role": "user", "content": ASKED_VERSE}, *first.output, decision]
    second = operator.responses.create(**GREEDY, input=items, tools=[ASK])
    assert not any(isinstance(item, McpCall) for item in second.output)


def test_an_approval_may_be_needed_for_some_tools(operator: openai.OpenAI) -> None:
    chosen: Any = {**ASK, "require_approval": {"never": {"tool_names": ["get_verse"]}}}
    reply = operator.responses.create(**GREEDY, input=ASKED_VERSE, tools=[chosen])
    assert isinstance(reply.output[1], McpCall)
    other: Any = {**ASK, "require_approval": {"never": {"tool_names": ["get_poem"]}}}
    reply = operator.responses.create(**GREEDY, input=ASKED_VERSE, tools=[other])
    assert isinstance(reply.output[1], McpApprovalRequest)


_REQUEST: Any = typed(
    "mcp_approval_request", id="r1", server_label="bible", name="get_verse", arguments="{}"
)


@pytest.mark.parametrize(
    ("items", "tools", "words"),
    [
        ([_REQUEST], [ASK], "there is no mcp_approval_response for 'r1'"),
        ([APPROVED], [ASK], "there is no mcp_approval_request with the id 'r1'"),
        ([_REQUEST, APPROVED], [], "'get_verse' of 'bible' is not in tools"),
        ([{**_REQUEST, "name": "rm"}, APPROVED], [ASK], "'rm' of 'bible' is not in tools"),
        (
            [_REQUEST, APPROVED],
            [{**ASK, "allowed_tools": ["get_poem"]}],
            "'get_verse' of 'bible' is not in tools",
        ),
    ],
)
def test_decisions_that_fit_nothing_are_refused(
    items: Any, tools: Any, words: str, operated: ServerProcess
) -> None:
    body = {**BODIES[RESPONSES], "input": [{"role": "user", "content": "?"}, *items]}
    reply = operated.request(RESPONSES, {**body, "tools": tools})
    assert words in check_refusal(RESPONSES, reply)
