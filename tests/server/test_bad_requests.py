"""What a request may not hold: each is refused by name, in OpenAI's shape, and never with a 500."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.servers import ServerProcess, connect, open_stream, read_status, start_server

USER = {"role": "user", "content": "x"}
TOOL = {"type": "function", "function": {"name": "get_verse"}}
OTHER_TOOL = {"type": "function", "function": {"name": "get_poem"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "y"}}}

# (path, fields besides a valid body, field that the error names, words of the sentence)
REFUSED: list[tuple[str, dict[str, Any], str | None, str]] = [
    ("chat", {"functions": []}, "functions", "not supported"),
    ("chat", {"function_call": "auto"}, "function_call", "not supported"),
    ("chat", {"audio": {}}, "audio", "not supported"),
    ("chat", {"modalities": ["audio"]}, "modalities[0]", "'text'"),
    ("chat", {"prediction": {}}, "prediction", "not supported"),
    ("chat", {"web_search_options": {}}, "web_search_options", "not supported"),
    ("chat", {"moderation": {}}, "moderation", "not supported"),
    ("chat", {"verbosity": "low"}, "verbosity", "not supported"),
    ("chat", {"store": True}, "store", "False"),
    ("chat", {"service_tier": "flex"}, "service_tier", "'auto'"),
    ("chat", {"prompt_cache_retention": "24h"}, "prompt_cache_retention", "not supported"),
    ("chat", {"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs.a", "not supported"),
    ("chat", {"messages": []}, "messages", "at least 1"),
    ("chat", {"messages": "x"}, "messages", "list"),
    ("chat", {"messages": [{"role": "x", "content": "x"}]}, "messages[0]", "'user'"),
    ("chat", {"messages": [{"role": "user"}]}, "messages[0].content", "required"),
    ("chat", {"messages": [{"role": "user", "content": None}]}, "messages[0].content", "valid"),
    ("chat", {"messages": [{**USER, "name": "x"}]}, "messages[0].name", "not supported"),
    ("chat", {"messages": [{"role": "assistant"}]}, "messages[0]", "content or tool_calls"),
    (
        "chat",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0]",
        "not supported",
    ),
    ("chat", {"messages": [{"role": "tool", "content": "x", "tool_call_id": "a"}]}, None, "result"),
    ("chat", {"temperature": -1}, "temperature", "greater than or equal to 0"),
    ("chat", {"temperature": "1"}, "temperature", "valid number"),
    ("chat", {"top_p": 0}, "top_p", "greater than 0"),
    ("chat", {"repetition_penalty": 0}, "repetition_penalty", "greater than or equal to 0.01"),
    ("chat", {"repetition_penalty": 2e6}, "repetition_penalty", "less than or equal to 1000000"),
    ("chat", {"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ("chat", {"max_tokens": 1.5}, "max_tokens", "valid integer"),
    ("chat", {"max_tokens": 1, "max_completion_tokens": 1}, None, "choose one"),
    ("chat", {"n": 0}, "n", "greater"),
    ("chat", {"n": 10**9}, "n", "less than or equal to 16"),
    ("chat", {"stop": ["a"] * 17}, "stop", "at most 16"),
    ("chat", {"stop": [""]}, "stop[0]", "at least 1"),
    ("chat", {"stop": "a" * 2000}, "stop", "at most 1024"),
    ("chat", {"logit_bias": {"x": 1}}, "logit_bias.x", "pattern"),
    ("chat", {"logit_bias": {"999999999": 1}}, None, "logit_bias"),
    ("chat", {"logit_bias": {"1": 1000}}, "logit_bias.1", "less than or equal to 100"),
    ("chat", {"top_logprobs": 3}, None, "logprobs: true"),
    ("chat", {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
    ("chat", {"stream_options": {}}, None, "stream: true"),
    ("chat", {"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "not supported"),
    ("chat", {"tools": [{"type": "function"}]}, "tools[0].function", "required"),
    ("chat", {"tools": [TOOL, TOOL]}, None, "two tools have the name"),
    ("chat", {"tools": [TOOL] * 129}, "tools", "at most 128"),
    ("chat", {"tools": [{"type": "function", "function": {"name": "a b"}}]}, None, "pattern"),
    (
        "chat",
        {
            "tools": [
                {"type": "function", "function": {"name": "a", "parameters": {"type": "null"}}}
            ]
        },
        "tools[0].function.parameters",
        "'object' is expected",
    ),
    ("chat", {"tool_choice": "required"}, None, "tools is empty"),
    (
        "chat",
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "b"}}},
        None,
        "does not have",
    ),
    ("chat", {"response_format": {"type": "xml"}}, "response_format.type", "'text'"),
    ("chat", {"response_format": {"type": "json_schema"}}, None, "json_schema is expected"),
    (
        "chat",
        {"response_format": {**FORMAT, "json_schema": {"name": "x", "schema": {"type": "y"}}}},
        None,
        "cannot be used",
    ),
    ("chat", {"continue_final_message": True}, None, "last message of the assistant"),
    ("chat", {"seed": 2**70}, "seed", "less than"),
    ("chat", {"user": 3}, "user", "valid string"),
    ("completions", {"prompt": ""}, None, "empty"),
    ("completions", {"prompt": []}, None, "at least 1"),
    ("completions", {"prompt": [[]]}, None, "at least 1"),
    ("completions", {"prompt": [-1]}, None, "greater"),
    ("completions", {"prompt": [10**6]}, None, "holds the id 1000000"),
    ("completions", {"prompt": ["x"] * 100, "n": 2}, None, "limited to 128"),
    ("completions", {"prompt": "x " * 5000}, None, "context"),
    ("completions", {"prompt": "\ud800"}, None, "Unicode"),
]
BODIES = {
    "chat": ("/v1/chat/completions", {"messages": [USER], "max_tokens": 1}),
    "completions": ("/v1/completions", {"prompt": "x", "max_tokens": 1}),
}


@pytest.mark.parametrize(("name", "fields", "param", "words"), REFUSED)
def test_refused_by_name(
    server: ServerProcess, name: str, fields: dict[str, Any], param: str | None, words: str
) -> None:
    path, body = BODIES[name]
    if "max_completion_tokens" in fields or "max_tokens" in fields:
        body = {key: value for key, value in body.items() if key != "max_tokens"}
    reply = server.request(path, {**body, **fields})
    error = reply.json["error"]
    assert (reply.status, error["type"]) == (400, "invalid_request_error"), error
    assert words in error["message"]
    if param is not None:
        assert error["param"] == param


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/tokenize"])
@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"3", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000),
        *(b'{"model": 1e999}', b'{"model": NaN}', b'{"messages": [], "messages": 1}'),
    ],
    ids=range(12),
)
def test_bodies_that_are_no_object(server: ServerProcess, path: str, body: bytes) -> None:
    reply = server.request(path, body)
    assert reply.status == 400, reply.body
    assert reply.json["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/tokenize"])
def test_a_body_that_is_too_long(server: ServerProcess, path: str) -> None:
    """It is refused by its announced length, so a client may still be sending it."""
    with connect(server) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
        connection.sendall(f"{head}\r\nContent-Length: {9 << 20}\r\n\r\n".encode())
        received = b""
        while b"8388608 bytes" not in received:
            part = connection.recv(1 << 16)
            assert part, received
            received += part
        assert received.startswith(b"HTTP/1.1 413")


def test_a_body_in_endless_chunks(server: ServerProcess) -> None:
    with connect(server) as connection:
        head = "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
        connection.sendall(f"{head}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(140):  # 9 MiB
            connection.sendall(chunk)
        assert read_status(connection).startswith("HTTP/1.1 413")


def test_deep_and_wide_values_end(server: ServerProcess) -> None:
    """Schemas and tools from a stranger are bounded before they are compiled."""
    deep: Any = {"type": "object"}
    for _ in range(100):
        deep = {"type": "object", "properties": {"a": deep}}
    chain = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(1000)} | {"a1000": {}}
    wide = {"enum": [f"value{i}" for i in range(20_000)]}
    for schema in (deep, {"$ref": "#/$defs/a0", "$defs": chain}, wide, {"pattern": "(a|a)*" * 99}):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        body = {"messages": [USER], "max_tokens": 1, "response_format": form}
        reply = server.request("/v1/chat/completions", body)
        assert reply.status in (200, 400), reply.body
    assert server.request("/health").status == 200


def test_what_is_not_there(server: ServerProcess) -> None:
    assert server.request("/v1/nothing").json["error"]["message"].startswith("there is no GET")
    wrong = server.request("/v1/chat/completions")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    assert server.request("/v1/models/x").status == 404
    assert server.request("/v1/models", b"{}").status == 405


def test_a_name_with_half_a_surrogate_pair(server: ServerProcess) -> None:
    body = json.dumps({"model": "\ud800", "messages": [USER]}).encode()
    reply = server.request("/v1/chat/completions", body)
    assert reply.status == 400
    assert "half a surrogate pair" in reply.json["error"]["message"]


def test_a_queue_that_is_full(sample_folder: Path) -> None:
    """With one row and no place to wait, the second request gets 429 and a time to come back."""
    with start_server(sample_folder, "--parallel", 1, "--max-waiting", 0) as found:
        long = {"messages": [USER], "max_tokens": 4000, "ignore_eos": True, "stream": True}
        with open_stream(found, long) as connection:
            assert connection.recv(1)
            reply = found.request("/v1/chat/completions", {"messages": [USER]})
            assert reply.status == 429
            assert int(reply.headers["Retry-After"]) >= 1
            assert reply.json["error"]["type"] == "rate_limit_error"


def test_no_text_of_a_prompt_is_logged(sample_folder: Path) -> None:
    secret = "geheimnis4711"
    for options, is_logged in (((), False), (("--log-prompts",), True)):
        with start_server(sample_folder, *options) as found:
            found.request("/v1/completions", {"prompt": secret, "max_tokens": 1})
            found.request("/v1/completions", {"prompt": secret, secret: 1})
            found.request("/v1/completions", {"model": secret, "prompt": "x"})
        assert any(secret in line for line in found.log) == is_logged, found.log
