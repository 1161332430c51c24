"""MCP servers of the operator that start, end, or lose the client that waits for them."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from openai.types.responses.response_output_item import McpCall

from glm_export import ExportOptions, export
from support.chat_templates import OWN_SYSTEM, SAMPLE
from support.commands import finish, start_command
from support.mcp_requests import GREEDY, NEVER, OPTIONS, approve, configure
from support.refusals import assert_sentence
from support.server_bodies import RESPONSES, typed
from support.servers import ServerProcess, open_stream, start_server
from support.verses import ASKED_VERSE


@pytest.fixture(scope="module")
def brief(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that allows one turn of calls; its MCP servers end with it."""
    tools = configure(tmp_path_factory.mktemp("tools"), "empty", "endless")
    options = ("--tools", tools, "--max-turns", 1, *OPTIONS)
    with start_server(f"sample={sample_folder}", *options) as found:
        yield found
        children = psutil.Process(found.process.pid).children(recursive=True)
        assert len(children) >= 2
    assert psutil.wait_procs(children, 30)[1] == []


@pytest.fixture
def client(brief: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{brief.url}/v1", api_key="none", max_retries=0)


def test_the_limit_of_turns(client: openai.OpenAI) -> None:
    """The sample model calls the tool a second time, because it finds nothing."""
    empty: Any = {"type": "mcp", "server_label": "empty", "require_approval": "never"}
    reply = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[empty])
    first, second = (item for item in reply.output if isinstance(item, McpCall))
    assert (first.status, first.output) == ("completed", "none")
    assert (second.status, second.output) == ("failed", None)
    assert second.error is not None
    assert "the limit of 1 turns is reached" in second.error.model_dump_json()
    assert (reply.output[-1].type, reply.status) == ("message", "completed")


def wait_for(event: str, client: openai.OpenAI) -> str | None:
    """Wait until `hang` has begun or ended, or its end is waited for; by a call of a tool."""
    tool: Any = {"type": "mcp", "server_label": "endless"}
    items: Any = approve("endless", "wait_for", json.dumps({"event": event}))
    call = client.responses.create(**GREEDY, input=items, tools=[tool]).output[1]
    assert isinstance(call, McpCall)
    return call.output


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_cancels_the_call(
    brief: ServerProcess, client: openai.OpenAI, stream: bool
) -> None:
    """The MCP server is told, and the other requests go on.

    The wait for the end begins before the call, so that its limit of time would end it first.
    """
    tool = {"type": "mcp", "server_label": "endless"}
    body = {"input": approve("endless", "hang"), "tools": [tool], "stream": stream}
    with ThreadPoolExecutor() as pool:
        end = pool.submit(wait_for, "ended", client)
        assert wait_for("waited for", client) == "waited for"
        with open_stream(brief, body, RESPONSES):
            assert wait_for("begun", client) == "begun"
        assert end.result() == "ended"


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
    tools = configure(tmp_path, "web")
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
    items: Any = approve("python", "python", '{"code": "6 * 7"}')
    ask: Any = typed("mcp", server_label="python")
    reply = client.responses.create(**GREEDY, input=items, tools=[ask])
    process.terminate()
    finish(process)
    call = reply.output[1]
    assert isinstance(call, McpCall)
    assert call.output == "42\n"
