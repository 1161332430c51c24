"""Tools of the operator's MCP servers in responses, as OpenAI's own client asks for them."""

import json
import threading
from typing import Any

import openai
import pytest
from openai.types.responses.response_output_item import McpCall, McpListTools

from support.mcp_requests import GREEDY, NEVER
from support.server_bodies import BODIES, RESPONSES, check_refusal, typed
from support.servers import ServerProcess
from support.verses import ASKED_VERSE, DESCRIPTION, PARAMETERS, VERSE


def test_the_server_calls_the_tool(operator: openai.OpenAI) -> None:
    reply = operator.responses.create(**GREEDY, input=ASKED_VERSE, tools=[NEVER])
    listed, call, message = reply.output
    assert isinstance(listed, McpListTools)
    assert isinstance(call, McpCall)
    assert [tool.name for tool in listed.tools] == ["get_verse", "get_poem"]
    assert (call.status, call.name, call.server_label) == ("completed", "get_verse", "bible")
    assert json.loads(call.arguments) == {"reference": "Micah 6:8"}
    assert (call.output, call.error) == (VERSE, None)
    assert message.type == "message"
    assert VERSE[:-1] in reply.output_text
    assert reply.status == "completed"
    assert reply.usage is not None
    assert reply.usage.output_tokens > 20  # of both answers
    # The second prompt begins as the first one and its answer.
    assert reply.usage.input_tokens_details.cached_tokens > reply.usage.input_tokens // 4


def test_a_stream_has_the_events_of_the_api(operator: openai.OpenAI) -> None:
    with operator.responses.stream(**GREEDY, input=ASKED_VERSE, tools=[NEVER]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.mcp_list_tools.in_progress",
        "response.mcp_list_tools.completed",
        "response.output_item.done",
        "response.output_item.added",
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.mcp_call.completed",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    folded = [kind for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1]]
    assert folded == expected
    deltas = "".join(
        event.delta for event in events if event.type == "response.mcp_call_arguments.delta"
    )
    call = final.output[1]
    assert isinstance(call, McpCall)
    assert deltas == call.arguments
    assert call.output == VERSE
    whole = operator.responses.create(**GREEDY, input=ASKED_VERSE, tools=[NEVER])
    assert final.output_text == whole.output_text


def test_items_can_be_sent_back(operator: openai.OpenAI) -> None:
    first = operator.responses.create(**GREEDY, input=ASKED_VERSE, tools=[NEVER])
    items: Any = [{"role": "user", "content": ASKED_VERSE}, *first.output]
    items += [{"role": "user", "content": "Hello!"}]
    second = operator.responses.create(**GREEDY, input=items, tools=[NEVER])
    assert second.output_text
    assert second.usage is not None
    assert second.usage.input_tokens_details.cached_tokens > second.usage.input_tokens // 2


def test_only_allowed_tools_are_offered(operator: openai.OpenAI) -> None:
    for allowed in (["get_poem"], {"tool_names": ["get_poem"]}):
        tool: Any = {**NEVER, "allowed_tools": allowed}
        reply = operator.responses.create(**GREEDY, input=ASKED_VERSE, tools=[tool])
        listed = reply.output[0]
        assert isinstance(listed, McpListTools)
        assert [tool.name for tool in listed.tools] == ["get_poem"]
        called = [item.name for item in reply.output if isinstance(item, McpCall)]
        assert "get_verse" not in called


def test_functions_of_the_client_end_the_response(operator: openai.OpenAI) -> None:
    function: Any = typed(
        "function", name="get_verse", description=DESCRIPTION, parameters=PARAMETERS, strict=True
    )
    poems: Any = {**NEVER, "allowed_tools": ["get_poem"]}
    reply = operator.responses.create(**GREEDY, input=ASKED_VERSE, tools=[poems, function])
    assert [item.type for item in reply.output] == ["mcp_list_tools", "function_call"]


def test_a_required_call_is_followed_by_an_answer(operator: openai.OpenAI) -> None:
    reply = operator.responses.create(
        **GREEDY, input=ASKED_VERSE, tools=[NEVER], tool_choice="required"
    )
    assert isinstance(reply.output[1], McpCall)
    assert reply.output_text


def test_no_tool_is_called_if_none_is_wanted(operator: openai.OpenAI) -> None:
    reply = operator.responses.create(
        **GREEDY, input=ASKED_VERSE, tools=[NEVER], tool_choice="none"
    )
    assert not any(isinstance(item, McpCall) for item in reply.output)


def test_a_failed_call_is_an_item_and_no_error(operator: openai.OpenAI) -> None:
    reply = operator.responses.create(**GREEDY, input="Look up John 3:16.", tools=[NEVER])
    call = reply.output[1]
    assert isinstance(call, McpCall)
    assert (call.status, call.output) == ("failed", None)
    assert call.error is not None
    assert call.error.type == "mcp_tool_execution_error"
    assert reply.status == "completed"
    items: Any = [{"role": "user", "content": "Look up John 3:16."}, *reply.output]
    items += [{"role": "user", "content": "Hello!"}]
    assert operator.responses.create(**GREEDY, input=items, tools=[NEVER]).status == "completed"


def test_the_limit_of_tokens_holds_over_all_answers(operator: openai.OpenAI) -> None:
    limited = {**GREEDY, "max_output_tokens": 24}
    reply = operator.responses.create(**limited, input=ASKED_VERSE, tools=[NEVER])
    assert reply.status == "incomplete"
    assert reply.usage is not None
    assert reply.usage.output_tokens <= 24


@pytest.mark.parametrize(
    ("tools", "param", "words"),
    [
        (
            [typed("mcp", server_label="other")],
            "tools[0].server_label",
            "this server has bible",
        ),
        ([NEVER, NEVER], "tools[1].server_label", "two tools have"),
        (
            [NEVER, typed("function", name="get_verse", parameters=None)],
            "tools",
            "rename the function",
        ),
        ([{**NEVER, "server_url": "http://127.0.0.1:1/mcp"}], "tools[0].server_url", ""),
        ([{**NEVER, "connector_id": "connector_gmail"}], "tools[0].connector_id", ""),
        ([{**NEVER, "headers": {"A": "b"}}], "tools[0].headers", ""),
        ([{**NEVER, "authorization": "key"}], "tools[0].authorization", ""),
        ([{**NEVER, "tunnel_id": "a"}], "tools[0].tunnel_id", ""),
        ([{**NEVER, "defer_loading": True}], "tools[0].defer_loading", ""),
        ([{**NEVER, "require_approval": "perhaps"}], "tools[0].require_approval", ""),
        ([{**NEVER, "allowed_tools": {"read_only": True}}], None, ""),
    ],
)
def test_what_is_refused(
    tools: Any, param: str | None, words: str, operated: ServerProcess
) -> None:
    """Nothing that a client sends makes the server connect anywhere."""
    reply = operated.request(RESPONSES, {**BODIES[RESPONSES], "tools": tools})
    message = check_refusal(RESPONSES, reply)
    assert words in message
    if param is not None:
        assert reply.json["error"]["param"].startswith(param)


def test_a_server_without_tools_says_so(server: ServerProcess) -> None:
    reply = server.request(RESPONSES, {**BODIES[RESPONSES], "tools": [NEVER]})
    assert "its operator starts it with --tools" in check_refusal(RESPONSES, reply)


def test_many_at_once(operator: openai.OpenAI) -> None:
    outputs: list[str] = []

    def ask() -> None:
        reply = operator.responses.create(**GREEDY, input=ASKED_VERSE, tools=[NEVER])
        outputs.append(reply.output_text)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outputs) == 6
    assert all(VERSE[:-1] in text for text in outputs)
