"""Bad input of responses and messages is refused in the client's shape, never with status 500."""

import json
from typing import Any

import pytest

from support.server_bodies import (
    BODIES,
    COUNT,
    FUNCTION,
    MESSAGES,
    RESPONSES,
    TOO_COMPLEX,
    TOOL,
    USER,
    check_refusal,
    message,
    typed,
)
from support.servers import ServerProcess

HALF = "\ud83d"  # half a surrogate pair
NAN = float("nan")


def call(id_: str) -> Any:
    return typed("function_call", call_id=id_, name="get", arguments="{}")


def result(id_: str) -> Any:
    return typed("function_call_output", call_id=id_, output="")


def use(*ids: str) -> Any:
    calls = [typed("tool_use", id=id_, name="get", input={}) for id_ in ids]
    return {"role": "assistant", "content": calls}


def used(*ids: str) -> Any:
    results = [typed("tool_result", tool_use_id=id_, content="") for id_ in ids]
    return {"role": "user", "content": results}


def say(content: Any) -> Any:
    return [{"role": "user", "content": content}]


# endpoint, field, values of which each is refused
BAD: list[tuple[str, str, list[Any]]] = [
    *((path, "unknown", [1, None]) for path in BODIES),
    *((path, "model", [3, [], {}]) for path in BODIES),
    *((path, "tools", [3, {}, [3], [{}], [None]]) for path in BODIES),
    *((path, "tool_choice", ["some", 3, {}, []]) for path in BODIES),
    *((path, "stream", ["yes", 1]) for path in (RESPONSES, MESSAGES)),
    *((path, "temperature", [-1, "a", [], NAN, 3]) for path in (RESPONSES, MESSAGES)),
    *((path, "top_p", [0, 2, {}, NAN]) for path in (RESPONSES, MESSAGES)),
    *((path, "top_k", [-1, 0.5, 10**400]) for path in (RESPONSES, MESSAGES)),
    (RESPONSES, "input", [None, 3, [], [3], [None], {}, [[]], [{}], ["a"]]),
    (RESPONSES, "input", [[{**USER, "role": role}] for role in ("tool", "", 3, None)]),
    (RESPONSES, "input", [say(content) for content in (None, 3, {}, [3], [{}], [None])]),
    (RESPONSES, "input", [[typed(kind)] for kind in ("", "message", "function_call", "other")]),
    (RESPONSES, "input", [[typed("reasoning")], [typed("reasoning", content=[])]]),
    (RESPONSES, "input", [[USER, call("a")], [USER, result("a")], [result("a")]]),
    (RESPONSES, "input", [[USER, call("a"), USER, result("a")]]),
    (RESPONSES, "input", [[USER, call("a"), result("b")]]),
    (RESPONSES, "input", [[USER, call("a"), result("a"), result("a")]]),
    (RESPONSES, "input", [[USER, call("a"), call("a"), result("a")]]),
    (RESPONSES, "input", [[USER] * 5000, "x" * 100_000]),
    (RESPONSES, "input", [HALF, say(HALF), message(typed("input_text", text=HALF))]),
    (RESPONSES, "metadata", [3, {"a": 3}, {"a": HALF}, {HALF: "a"}]),
    (RESPONSES, "instructions", [3, [], HALF]),
    (RESPONSES, "max_output_tokens", [0, -1, 1.5, "3"]),
    (RESPONSES, "top_logprobs", [21, -1, 2]),
    (RESPONSES, "include", ["all", [3], {}]),
    (RESPONSES, "reasoning", ["high", {"effort": "huge"}, {"effort": 3}]),
    (RESPONSES, "text", [3, {"format": typed("json_schema")}, {"format": typed("xml")}]),
    (RESPONSES, "text", [{"format": typed("json_schema", name="a", schema={"type": 3})}]),
    (RESPONSES, "stream_options", [{}, 3]),
    (RESPONSES, "tools", [[FUNCTION] * 200, [FUNCTION, FUNCTION], [{**FUNCTION, "name": "a b"}]]),
    (RESPONSES, "tools", [[{**FUNCTION, "parameters": {"x": value}}] for value in (NAN, HALF)]),
    (RESPONSES, "tools", [[{**FUNCTION, "parameters": {"type": "string"}}]]),
    (MESSAGES, "tools", [[{**TOOL, "input_schema": {"type": ["object", "null"]}}]]),
    (RESPONSES, "tool_choice", ["required", typed("function", name="get"), typed("function")]),
    (MESSAGES, "messages", [None, "a", [], [3], {}, [{}]]),
    (MESSAGES, "messages", [[{**USER, "role": role}] for role in ("tool", "", 3, None)]),
    (MESSAGES, "messages", [say(content) for content in (None, [], 3, {}, [3], [{}], ["a"])]),
    (MESSAGES, "messages", [message(typed("text")), message(typed("text", text=3))]),
    (MESSAGES, "messages", [[USER, use("a")], [USER, use("a"), USER], [used("a")]]),
    (MESSAGES, "messages", [[USER, use("a"), used("b")], [USER, use("a"), used("a", "a")]]),
    (
        MESSAGES,
        "messages",
        [[USER, use("a", "a"), used("a", "a")], [USER, use("a", "b"), used("a")]],
    ),
    (MESSAGES, "messages", [[USER, use("a"), USER, used("a")]]),
    (MESSAGES, "messages", [[USER, {"role": "assistant", "content": " "}]]),
    (MESSAGES, "messages", [say(HALF), message(typed("text", text=HALF)), say("x" * 100_000)]),
    (MESSAGES, "max_tokens", [None, "a", -1, 0.5]),
    (MESSAGES, "system", [3, [3], [{}], HALF]),
    (MESSAGES, "metadata", [3, {"other": "a"}, {"user_id": HALF}]),
    (MESSAGES, "stop_sequences", ["a", [""], [3], ["a"] * 1000, ["a" * 10_000]]),
    (MESSAGES, "thinking", ["enabled", {}, typed("enabled"), typed("enabled", budget_tokens=2000)]),
    (MESSAGES, "tools", [[TOOL, TOOL], [{**TOOL, "name": ""}], [{**TOOL, "input_schema": 3}]]),
    (MESSAGES, "tool_choice", [typed("any"), typed("tool", name="get"), typed("tool")]),
    (MESSAGES, "cache_control", [3, typed("ephemeral", ttl="1y")]),
    (MESSAGES, "output_config", [3, {"format": typed("json_schema")}, {"effort": "huge"}]),
    (COUNT, "messages", [[USER, use("a")], say(HALF), []]),
]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *(
            (path, {**BODIES[path], field: value})
            for path, field, values in BAD
            for value in values
        ),
        *((path, body) for path in BODIES for body in (None, [], 3, "a", {}, True, [{}])),
        (MESSAGES, {"messages": [USER]}),
    ],
)
def test_bad_input_is_refused(server: ServerProcess, path: str, body: Any) -> None:
    check_refusal(path, server.request(path, json.dumps(body).encode()))


COMPLEX: dict[str, Any] = {
    RESPONSES: {
        "input": "?",
        "text": {"format": typed("json_schema", name="a", schema=TOO_COMPLEX)},
    },
    MESSAGES: {
        "messages": [USER],
        "max_tokens": 50,
        "output_config": {"format": typed("json_schema", schema=TOO_COMPLEX)},
    },
}


@pytest.mark.parametrize("path", COMPLEX)
def test_an_answer_that_fails_half_way(server: ServerProcess, path: str) -> None:
    """A stream has begun with status 200, so its last event tells of the failure."""
    assert "max is 2000" in check_refusal(path, server.request(path, COMPLEX[path]))
    reply = server.request(path, {**COMPLEX[path], "stream": True})
    assert reply.status == 200
    last = reply.events[-1]
    if path == MESSAGES:
        assert (last["type"], last["error"]["type"]) == ("error", "invalid_request_error")
        found = last["error"]["message"]
    else:
        response = last["response"]
        assert (last["type"], response["status"]) == ("response.failed", "failed")
        assert response["error"]["code"] == "invalid_prompt"
        assert response["output"][0]["content"][0]["text"].startswith('{"a": ')
        found = response["error"]["message"]
    assert "max is 2000" in found


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"a": ' + b"[" * 100_000, b'{"top_k": ' + b"9" * 5000 + b"}"],
    ids=["nothing", "half", "no text", "deep", "long number"],
)
def test_what_is_no_json_is_refused(server: ServerProcess, path: str, body: bytes) -> None:
    check_refusal(path, server.request(path, body))


@pytest.mark.parametrize("path", BODIES)
def test_an_unknown_model_and_a_wrong_method(server: ServerProcess, path: str) -> None:
    unknown = server.request(path, {**BODIES[path], "model": "other"})
    assert unknown.status == 404
    assert "there is no model 'other'" in unknown.body.decode()
    wrong = server.request(path)
    assert wrong.status == 405
    assert (wrong.json.get("type") == "error") == (path != RESPONSES)
