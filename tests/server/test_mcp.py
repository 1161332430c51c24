"""Tools of the operator's MCP servers in responses, as OpenAI's own client asks for them."""

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from openai.types.responses.response_output_item import (
    McpApprovalRequest,
    McpCall,
    McpListTools,
)

from glm_export import ExportOptions, export
from support.chat_templates import OWN_SYSTEM, SAMPLE
from support.commands import finish, start_command
from support.refusals import assert_sentence
from support.server_bodies import BODIES, RESPONSES, check_refusal, typed
from support.servers import ServerProcess, start_server
from support.verses import ASKED_VERSE, DESCRIPTION, PARAMETERS, VERSE

SERVERS = Path(__file__).parents[1] / "support" / "mcp_servers.py"
GREEDY: Any = {"model": "sample", "temperature": 0, "max_output_tokens": 200}
NEVER: Any = {"type": "mcp", "server_label": "bible", "require_approval": "never"}
ASK: Any = {"type": "mcp", "server_label": "bible"}
SLOW: Any = {"type": "mcp", "server_label": "slow", "require_approval": "never"}
OPTIONS = ("--threads", 1, "--no-huge-pages")


def configure(folder: Path, **servers: str) -> Path:
    entries = {
        label: {"command": sys.executable, "args": [str(SERVERS), name]}
        for label, name in servers.items()
    }
    path = folder / "agent.json"
    path.write_text(json.dumps({"mcpServers": entries}))
    return path


@pytest.fixture(scope="module")
def agents(
    sample_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with the tools of two MCP servers, of which one never answers."""
    tools = configure(tmp_path_factory.mktemp("tools"), bible="bible", slow="slow")
    with start_server(f"sample={sample_folder}", "--tools", tools, *OPTIONS) as found:
        yield found


@pytest.fixture(scope="module")
def only_bible(
    sample_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    tools = configure(tmp_path_factory.mktemp("tools"), bible="bible")
    options = ("--tools", tools, "--max-turns", 1, *OPTIONS)
    with start_server(f"sample={sample_folder}", *options) as found:
        yield found


@pytest.fixture(scope="module")
def client(only_bible: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{only_bible.url}/v1", api_key="none", max_retries=0)


def test_the_server_calls_the_tool(client: openai.OpenAI) -> None:
    reply = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[NEVER])
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


def test_a_stream_has_the_events_of_the_api(client: openai.OpenAI) -> None:
    with client.responses.stream(**GREEDY, input=ASKED_VERSE, tools=[NEVER]) as stream:
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
    whole = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[NEVER])
    assert final.output_text == whole.output_text


def test_items_can_be_sent_back(client: openai.OpenAI) -> None:
    first = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[NEVER])
    items: Any = [{"role": "user", "content": ASKED_VERSE}, *first.output]
    items += [{"role": "user", "content": "Hello!"}]
    second = client.responses.create(**GREEDY, input=items, tools=[NEVER])
    assert second.output_text
    assert second.usage is not None
    assert second.usage.input_tokens_details.cached_tokens > second.usage.input_tokens // 2


def test_an_approval_is_asked_for_and_given(client: openai.OpenAI) -> None:
    """Nothing is stored: the client sends the request back with its decision."""
    first = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[ASK])
    listed, request = first.output
    assert isinstance(listed, McpListTools)
    assert isinstance(request, McpApprovalRequest)
    assert json.loads(request.arguments) == {"reference": "Micah 6:8"}
    decision = typed("mcp_approval_response", approval_request_id=request.id, approve=True)
    items: Any = [{"role": "user", "content": ASKED_VERSE}, *first.output, decision]
    second = client.responses.create(**GREEDY, input=items, tools=[ASK])
    call = second.output[1]
    assert isinstance(call, McpCall)
    assert (call.output, call.approval_request_id) == (VERSE, request.id)
    assert VERSE[:-1] in second.output_text
    at_once = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[NEVER])
    assert second.output_text == at_once.output_text
    # Sent back once more, the call is not run again.
    items += [*second.output, {"role": "user", "content": "Hello!"}]
    third = client.responses.create(**GREEDY, input=items, tools=[ASK])
    assert not any(isinstance(item, McpCall) for item in third.output)
    with client.responses.stream(**GREEDY, input=items[:4], tools=[ASK]) as stream:
        streamed = stream.get_final_response()
    assert streamed.output_text == second.output_text
    assert [item.type for item in streamed.output] == [item.type for item in second.output]


def test_an_approval_is_denied(client: openai.OpenAI) -> None:
    first = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[ASK])
    request = first.output[1]
    assert isinstance(request, McpApprovalRequest)
    decision = typed(
        "mcp_approval_response", approval_request_id=request.id, approve=False, reason="Not now."
    )
    items: Any = [{"role": "user", "content": ASKED_VERSE}, *first.output, decision]
    second = client.responses.create(**GREEDY, input=items, tools=[ASK])
    assert not any(isinstance(item, McpCall) for item in second.output)


def test_an_approval_may_be_needed_for_some_tools(client: openai.OpenAI) -> None:
    chosen: Any = {**ASK, "require_approval": {"never": {"tool_names": ["get_verse"]}}}
    reply = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[chosen])
    assert isinstance(reply.output[1], McpCall)
    other: Any = {**ASK, "require_approval": {"never": {"tool_names": ["get_poem"]}}}
    reply = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[other])
    assert isinstance(reply.output[1], McpApprovalRequest)


def test_only_allowed_tools_are_offered(client: openai.OpenAI) -> None:
    for allowed in (["get_poem"], {"tool_names": ["get_poem"]}):
        tool: Any = {**NEVER, "allowed_tools": allowed}
        reply = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[tool])
        listed = reply.output[0]
        assert isinstance(listed, McpListTools)
        assert [tool.name for tool in listed.tools] == ["get_poem"]
        called = [item.name for item in reply.output if isinstance(item, McpCall)]
        assert "get_verse" not in called


def test_functions_of_the_client_end_the_response(client: openai.OpenAI) -> None:
    function: Any = typed(
        "function", name="get_verse", description=DESCRIPTION, parameters=PARAMETERS, strict=True
    )
    poems: Any = {**NEVER, "allowed_tools": ["get_poem"]}
    reply = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[poems, function])
    assert [item.type for item in reply.output] == ["mcp_list_tools", "function_call"]


def test_a_required_call_is_followed_by_an_answer(client: openai.OpenAI) -> None:
    reply = client.responses.create(
        **GREEDY, input=ASKED_VERSE, tools=[NEVER], tool_choice="required"
    )
    assert isinstance(reply.output[1], McpCall)
    assert reply.output_text


def test_no_tool_is_called_if_none_is_wanted(client: openai.OpenAI) -> None:
    reply = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[NEVER], tool_choice="none")
    assert not any(isinstance(item, McpCall) for item in reply.output)


def test_a_failed_call_is_an_item_and_no_error(client: openai.OpenAI) -> None:
    reply = client.responses.create(**GREEDY, input="Look up John 3:16.", tools=[NEVER])
    call = reply.output[1]
    assert isinstance(call, McpCall)
    assert (call.status, call.output) == ("failed", None)
    assert call.error is not None
    assert call.error.type == "mcp_tool_execution_error"
    assert reply.status == "completed"
    items: Any = [{"role": "user", "content": "Look up John 3:16."}, *reply.output]
    items += [{"role": "user", "content": "Hello!"}]
    assert client.responses.create(**GREEDY, input=items, tools=[NEVER]).status == "completed"


def test_the_limit_of_tokens_holds_over_all_answers(client: openai.OpenAI) -> None:
    limited = {**GREEDY, "max_output_tokens": 24}
    reply = client.responses.create(**limited, input=ASKED_VERSE, tools=[NEVER])
    assert reply.status == "incomplete"
    assert reply.usage is not None
    assert reply.usage.output_tokens <= 24


@pytest.mark.parametrize(
    ("tools", "param", "words"),
    [
        ([typed("mcp", server_label="other")], "tools[0].server_label", "this server has bible"),
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
    tools: Any, param: str | None, words: str, only_bible: ServerProcess
) -> None:
    """Nothing that a client sends makes the server connect anywhere."""
    reply = only_bible.request(RESPONSES, {**BODIES[RESPONSES], "tools": tools})
    message = check_refusal(RESPONSES, reply)
    assert words in message
    if param is not None:
        assert reply.json["error"]["param"].startswith(param)


REQUEST: Any = typed(
    "mcp_approval_request", id="r1", server_label="bible", name="get_verse", arguments="{}"
)
APPROVED: Any = typed("mcp_approval_response", approval_request_id="r1", approve=True)


@pytest.mark.parametrize(
    ("items", "tools", "words"),
    [
        ([REQUEST], [ASK], "there is no mcp_approval_response for 'r1'"),
        ([APPROVED], [ASK], "there is no mcp_approval_request with the id 'r1'"),
        ([REQUEST, APPROVED], [], "'get_verse' of 'bible' is not in tools"),
        ([{**REQUEST, "name": "rm"}, APPROVED], [ASK], "'rm' of 'bible' is not in tools"),
        (
            [REQUEST, APPROVED],
            [{**ASK, "allowed_tools": ["get_poem"]}],
            "'get_verse' of 'bible' is not in tools",
        ),
    ],
)
def test_decisions_that_fit_nothing_are_refused(
    items: Any, tools: Any, words: str, only_bible: ServerProcess
) -> None:
    body = {**BODIES[RESPONSES], "input": [{"role": "user", "content": "?"}, *items]}
    reply = only_bible.request(RESPONSES, {**body, "tools": tools})
    assert words in check_refusal(RESPONSES, reply)


def test_a_server_without_tools_says_so(server: ServerProcess) -> None:
    reply = server.request(RESPONSES, {**BODIES[RESPONSES], "tools": [NEVER]})
    assert "its operator starts it with --tools" in check_refusal(RESPONSES, reply)


def test_a_client_that_goes_away_cancels_the_call(agents: ServerProcess) -> None:
    """And the other requests go on."""
    client = openai.OpenAI(base_url=f"{agents.url}/v1", api_key="none", max_retries=0)
    request = typed(
        "mcp_approval_request",
        id="r1",
        server_label="slow",
        name="get_verse",
        arguments='{"reference": "Micah 6:8"}',
    )
    items: Any = [{"role": "user", "content": ASKED_VERSE}, request, APPROVED]
    for stream in (False, True):
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=2).responses.create(
                **GREEDY, input=items, tools=[SLOW], stream=stream
            )
    names = client.responses.create(**GREEDY, input="Hello!", tools=[SLOW, NEVER])
    assert [item.type for item in names.output][:2] == ["mcp_list_tools", "mcp_list_tools"]


def test_many_at_once(client: openai.OpenAI) -> None:
    outputs: list[str] = []

    def ask() -> None:
        reply = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[NEVER])
        outputs.append(reply.output_text)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outputs) == 6
    assert all(VERSE[:-1] in text for text in outputs)


def test_the_servers_end_with_the_server(sample_folder: Path, tmp_path: Path) -> None:
    tools = configure(tmp_path, bible="bible", slow="slow")
    with start_server(f"sample={sample_folder}", "--tools", tools, *OPTIONS) as found:
        children = psutil.Process(found.process.pid).children(recursive=True)
        assert len(children) >= 2
    assert psutil.wait_procs(children, 30)[1] == []


def test_tools_that_cannot_start_end_the_server_in_a_sentence(
    sample_folder: Path, tmp_path: Path
) -> None:
    tools = tmp_path / "agent.json"
    tools.write_text('{"mcpServers": {"absent": {"command": "no-such-program"}}}')
    arguments = ("serve", f"sample={sample_folder}", "--tools", tools, *OPTIONS, "--port", 0)
    code, out, log = finish(start_command("glm-run", *arguments))
    assert (code, out) == (1, "")
    assert "there is no program no-such-program" in log.splitlines()[-1]
    assert "Traceback" not in log
    tools.write_text('{"mcpServers": {"a": {"url": "ftp://x"}}}')
    code, out, log = finish(start_command("glm-run", *arguments))
    assert (code, out) == (1, "")
    assert_sentence(log.strip().removeprefix("Error: "), "ftp://x")
    code, _, log = finish(
        start_command("glm-run", "serve", f"sample={sample_folder}", "--max-turns", 3)
    )
    assert code == 2
    assert "--max-turns has no effect without --tools" in log


def test_rumination_searches_in_the_server(tmp_path: Path) -> None:
    """Its template lists the tool itself, and reads pages in a form of its own."""
    checkpoint = shutil.copytree(SAMPLE, tmp_path / "checkpoint")
    (checkpoint / "chat_template.jinja").write_text(OWN_SYSTEM, encoding="utf-8")
    folder = tmp_path / "folder"
    export(ExportOptions(checkpoint, folder, method="rtn", verify="none"))
    tools = configure(tmp_path, web="web")
    search: Any = {**NEVER, "server_label": "web", "allowed_tools": ["search"]}
    with start_server(f"sample={folder}", "--tools", tools, *OPTIONS) as found:
        client = openai.OpenAI(base_url=f"{found.url}/v1", api_key="none", max_retries=0)
        reply = client.responses.create(
            model="sample",
            temperature=0,
            max_output_tokens=300,
            input=ASKED_VERSE,
            tools=[search],
            tool_choice="required",
        )
    call = reply.output[1]
    assert isinstance(call, McpCall)
    assert (call.name, call.status) == ("search", "completed")
    query = json.loads(call.arguments)["query"]
    assert call.output is not None
    assert json.loads(call.output)[0]["snippet"] == f"about {query}"


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed")
def test_python_is_a_server_of_its_own(sample_folder: Path, tmp_path: Path) -> None:
    tools = tmp_path / "agent.json"
    tools.write_text('{"mcpServers": {}, "python": {}}')
    process = start_command("glm-run", "serve", f"sample={sample_folder}", "--tools", tools,
                            *OPTIONS, "--port", 0)  # fmt: skip
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    if not url and "sandbox" in finish(process)[2]:
        pytest.skip("bubblewrap makes no sandbox here")
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    request = typed(
        "mcp_approval_request",
        id="r1",
        server_label="python",
        name="python",
        arguments='{"code": "6 * 7"}',
    )
    items: Any = [{"role": "user", "content": "?"}, request, APPROVED]
    ask: Any = typed("mcp", server_label="python")
    reply = client.responses.create(**GREEDY, input=items, tools=[ask])
    process.terminate()
    finish(process)
    call = reply.output[1]
    assert isinstance(call, McpCall)
    assert call.output == "42\n"
