"""A configuration is read strictly: what has no effect, or cannot be meant, is named."""

import json
from typing import Any

import pytest

from glm_agents.configuration import (
    AgentConfiguration,
    HttpServer,
    PythonTool,
    StdioServer,
    read_configuration,
)
from glm_agents.errors import AgentError
from glm_agents.limits import AgentLimits
from support.refusals import assert_sentence

STDIO = {"command": "run"}


def read(content: object) -> AgentConfiguration:
    return read_configuration(json.dumps(content), "agent.json")


def test_the_format_of_mcp_hosts() -> None:
    servers = {
        "local": {"type": "stdio", "command": "run", "args": ["-c", "a\nb"], "env": {"A": ""}},
        "there": {"command": "run", "cwd": "/tmp"},
        "far": {"type": "http", "url": "https://example.org:8443/mcp", "headers": {"X": "key"}},
    }
    found = read({"mcpServers": servers, "python": {"seconds": 5, "memoryMegabytes": 256}})
    assert found.servers == (
        StdioServer("local", "run", ("-c", "a\nb"), {"A": ""}),
        StdioServer("there", "run", cwd="/tmp"),
        HttpServer("far", "https://example.org:8443/mcp", {"X": "key"}),
    )
    assert found.python == PythonTool(5, 256 << 20)
    assert read({"mcpServers": {}, "python": {}}).python == PythonTool()
    assert "key" not in repr(found)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], ["agent.json is []", "an object"]),
        ({"python": {}}, ["mcpServers is missing", "an object"]),
        ({"mcpServers": {}}, ["names no server"]),
        ({"mcpServers": {}, "python": True}, ["python is True"]),
        ({"mcpServers": {}, "python": {"seconds": "5"}}, ["python.seconds is '5'"]),
        ({"mcpServers": {}, "python": {"seconds": 0}}, ["python.seconds is 0"]),
        ({"mcpServers": {}, "python": {"seconds": True}}, ["python.seconds is True"]),
        ({"mcpServers": {}, "python": {"network": True}}, ["'network'", "seconds"]),
        ({"mcpServers": {"a": STDIO}, "inputs": []}, ["'inputs'", "mcpServers"]),
        ({"mcpServers": {"a b": STDIO}}, ["'a b'", "letters"]),
        ({"mcpServers": {"a.b": STDIO}}, ["'a.b'"]),
        ({"mcpServers": {"python": STDIO}}, ["'python'"]),
        ({"mcpServers": {f"s{i}": STDIO for i in range(65)}}, ["65 servers", "at most 64"]),
        ({"mcpServers": {"a": {}}}, ["neither command and url"]),
        ({"mcpServers": {"a": {"command": "x", "url": "http://a"}}}, ["both command and url"]),
        ({"mcpServers": {"a": {"command": ""}}}, ["a.command is ''"]),
        ({"mcpServers": {"a": {"command": "x", "args": "y"}}}, ["a.args is 'y'", "a list"]),
        ({"mcpServers": {"a": {"command": "x", "args": [1]}}}, ["a.args is 1", "a text"]),
        ({"mcpServers": {"a": {"command": "x", "args": ["\0"]}}}, ["a.args"]),
        ({"mcpServers": {"a": {"command": "x", "env": {"A": 1}}}}, ["a.env.A is 1"]),
        ({"mcpServers": {"a": {"command": "x", "disabled": True}}}, ["'disabled'"]),
        ({"mcpServers": {"a": {"command": "x", "type": "http"}}}, ["'http'", "stdio"]),
        ({"mcpServers": {"a": {"url": "http://a", "type": "sse"}}}, ["'sse'", "http"]),
        ({"mcpServers": {"a": {"url": "file:///etc/passwd"}}}, ["file:///etc/passwd"]),
        ({"mcpServers": {"a": {"url": "http://"}}}, ["a.url"]),
        ({"mcpServers": {"a": {"url": "http://a:99999"}}}, ["a.url"]),
        ({"mcpServers": {"a": {"url": "http://a\n"}}}, ["a.url"]),
        ({"mcpServers": {"a": {"url": "http://a", "headers": []}}}, ["a.headers is []"]),
    ],
)
def test_what_cannot_be_meant_is_refused(content: object, words: list[str]) -> None:
    with pytest.raises(AgentError) as caught:
        read(content)
    assert_sentence(str(caught.value), *words)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(AgentError) as caught:
        read_configuration(text, "agent.json")
    assert_sentence(str(caught.value), "agent.json is not JSON")


@pytest.mark.parametrize("name", ["max_turns", "call_seconds", "total_seconds"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    values: dict[str, Any] = {name: 0}
    with pytest.raises(AgentError) as caught:
        AgentLimits(**values)
    assert_sentence(str(caught.value), f"{name} is 0")
