"""Arguments that a model did not complete come back from clients, and are read if possible."""

import json
from typing import Any

import pytest

from glm_runtime.text.chat_template import ChatTemplate
from glm_server.openai.chat_request import read_prompt
from glm_server.openai.chat_schema import ChatPromptFields
from glm_server.openai.mcp_tools import McpTools
from glm_server.openai.responses_request import read_prompt as read_items
from glm_server.openai.responses_schema import ResponsePromptFields
from glm_server.resent_calls import complete_calls
from support.chat_templates import list_templates
from support.server_bodies import USER, typed

CUT = '{"at": "Micah 6'


def call(arguments: str) -> Any:
    return {"id": "a", "type": "function", "function": {"name": "get", "arguments": arguments}}


def read(arguments: str) -> Any:
    (message,) = complete_calls([{"role": "assistant", "tool_calls": [call(arguments)]}])
    return message["tool_calls"][0]["function"]["arguments"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (CUT, {"at": "Micah 6"}),
        ('{"at": "x", "n": [1, 2', {"at": "x", "n": [1, 2]}),
        ('{"at": "x", "n": </arg_value>', {"at": "x"}),
        ('{"a": x}', {}),
        ("{bad", {}),
        ("{", {}),
        *((text, text) for text in ('{"a": 1}', "{}", "", "[1]", "null", "bad")),
    ],
)
def test_what_can_be_read_is_kept(text: str, found: object) -> None:
    assert read(text) == found


def test_a_long_text_is_read_in_time() -> None:
    assert read(json.dumps({"a": "x" * 4_000_000})[:-5] + "\n") == {"a": "x" * 3_999_997}


@pytest.mark.parametrize("name", list_templates())
def test_every_dialect_takes_them(name: str) -> None:
    """GLM-4.5's was refused, so that a conversation could not go on."""
    result = {"role": "tool", "tool_call_id": "a", "content": "sun"}
    chat: Any = [USER, {"role": "assistant", "tool_calls": [call(CUT)]}, result]
    items: Any = [
        USER,
        typed("function_call", call_id="a", name="get", arguments=CUT),
        typed("function_call_output", call_id="a", output="sun"),
    ]
    template = ChatTemplate(list_templates()[name][0])
    for question in (
        read_prompt(ChatPromptFields.model_validate({"messages": chat})),
        read_items(ResponsePromptFields.model_validate({"input": items}), McpTools()),
    ):
        text = template.render(question.list_messages(template))
        assert "Micah 6" in text
