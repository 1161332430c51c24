"""Items and blocks of clients become the runtime's messages."""

from typing import Any

import pytest

from glm_server.anthropic.request import read_prompt
from glm_server.anthropic.schema import CountRequest
from glm_server.openai.mcp_tools import McpTools
from glm_server.openai.responses_request import read_question
from glm_server.openai.responses_schema import ResponseRequest
from support.server_bodies import USER, typed


def call_item(id_: str) -> Any:
    return typed("function_call", call_id=id_, name="get", arguments='{"a": 1}')


def result_item(id_: str) -> Any:
    return typed("function_call_output", call_id=id_, output=f"of {id_}")


def said_item(text: str) -> Any:
    return typed("message", role="assistant", content=[typed("output_text", text=text)])


def called(*ids: str) -> Any:
    function = {"name": "get", "arguments": '{"a": 1}'}
    return [{"id": id_, "type": "function", "function": function} for id_ in ids]


def answered(content: str, *ids: str, **more: Any) -> Any:
    message = {"role": "assistant", "content": content, **more}
    return {**message, "tool_calls": called(*ids)} if ids else message


def returned(id_: str) -> Any:
    return {"role": "tool", "tool_call_id": id_, "content": f"of {id_}"}


THOUGHT = typed("reasoning", content=[typed("reasoning_text", text="so")])


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ([USER], [USER]),
        ([USER, said_item("a"), said_item("b")], [USER, answered("a"), answered("b")]),
        (
            [USER, THOUGHT, said_item("a"), call_item("x"), call_item("y"), result_item("x")],
            [USER, answered("a", "x", "y", reasoning_content="so"), returned("x")],
        ),
        # A stream may put text behind calls; their results must follow them all the same.
        (
            [USER, said_item("a"), call_item("x"), said_item("b"), result_item("x")],
            [USER, answered("a\nb", "x"), returned("x")],
        ),
        (
            [USER, THOUGHT, call_item("x"), result_item("x"), THOUGHT, call_item("y")],
            [
                USER,
                answered("", "x", reasoning_content="so"),
                returned("x"),
                answered("", "y", reasoning_content="so"),
            ],
        ),
    ],
)
def test_items_of_one_answer_become_one_message(items: list[Any], messages: list[Any]) -> None:
    question = read_question(ResponseRequest.model_validate({"input": items}), McpTools())
    assert question.messages == messages


def use(id_: str) -> Any:
    return typed("tool_use", id=id_, name="get", input={"a": 1})


def text(said: str) -> Any:
    return typed("text", text=said)


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ([USER], [USER]),
        ([USER, USER], [{"role": "user", "content": "?\n?"}]),
        (
            [
                USER,
                {
                    "role": "assistant",
                    "content": [
                        typed("thinking", thinking="so", signature="unsigned"),
                        text("a"),
                        use("x"),
                        text("b"),
                        use("y"),
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        typed("tool_result", tool_use_id="x", content="of x"),
                        typed("tool_result", tool_use_id="y", content=[text("of"), text("y")]),
                        text("?"),
                    ],
                },
            ],
            [
                USER,
                answered("a\nb", "x", "y", reasoning_content="so"),
                returned("x"),
                {**returned("y"), "content": "of\ny"},
                USER,
            ],
        ),
        (
            [
                {"role": "system", "content": "be"},
                USER,
                {"role": "system", "content": [text("so")]},
            ],
            [{"role": "system", "content": "be"}, USER, {"role": "system", "content": "so"}],
        ),
    ],
)
def test_blocks_become_messages(given: list[Any], messages: list[Any]) -> None:
    question = read_prompt(CountRequest.model_validate({"messages": given}))
    assert [{**one} for one in question.messages] == messages
