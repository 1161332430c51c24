"""Every parameter of the newest clients is obeyed, documented as without effect, or refused.

The clients' own signatures are read, so that a parameter of a newer client fails here.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import anthropic
import openai
import pydantic
import pytest
from anthropic import types as blocks
from anthropic.types import beta
from openai.types import chat, responses, shared, shared_params
from openai.types.responses import response_input_param as inputs
from openai.types.responses import response_output_item as items
from openai.types.responses import tool_param

from glm_server import schema as common
from glm_server.anthropic import schema as anthropic_schema
from glm_server.anthropic.schema import CountRequest, MessageRequest
from glm_server.openai import chat_schema, mcp_schema, responses_schema
from glm_server.openai.chat_schema import ChatCompletionRequest
from glm_server.openai.completions_schema import CompletionRequest
from glm_server.openai.responses_schema import ResponsePromptFields, ResponseRequest
from glm_server.schema import Body, Effort
from support.server_bodies import BODIES, COUNT, FUNCTION, MESSAGES, RESPONSES, USER
from support.servers import ServerProcess

DOCS = Path(__file__).parents[2] / "docs" / "server-refused.md"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
INPUT_TOKENS = "/v1/responses/input_tokens"
OPENAI = openai.OpenAI(api_key="none", base_url="http://127.0.0.1:1")
ANTHROPIC = anthropic.Anthropic(api_key="none")
# How the client itself sends a request; none of these is a field of a body.
TRANSPORT = {"extra_headers", "extra_query", "extra_body", "timeout", "betas"}
METHODS: list[tuple[str, type[Body], Callable[..., Any]]] = [
    (CHAT, ChatCompletionRequest, OPENAI.chat.completions.create),
    (COMPLETIONS, CompletionRequest, OPENAI.completions.create),
    (RESPONSES, ResponseRequest, OPENAI.responses.create),
    (INPUT_TOKENS, ResponsePromptFields, OPENAI.responses.input_tokens.count),
    (MESSAGES, MessageRequest, ANTHROPIC.messages.create),
    (MESSAGES, MessageRequest, ANTHROPIC.beta.messages.create),
    (COUNT, CountRequest, ANTHROPIC.messages.count_tokens),
    (COUNT, CountRequest, ANTHROPIC.beta.messages.count_tokens),
]
# What clients make of our answers, and what takes it when it comes back in a conversation.
ROUND_TRIPS: list[tuple[type[pydantic.BaseModel], type[Body]]] = [
    (chat.ChatCompletionMessage, chat_schema.AssistantMessage),
    (chat.ChatCompletionMessageFunctionToolCall, chat_schema.MessageToolCall),
    (responses.ResponseOutputMessage, responses_schema.InputMessage),
    (responses.ResponseOutputText, responses_schema.OutputTextPart),
    (responses.ResponseReasoningItem, responses_schema.InputReasoning),
    (responses.ResponseFunctionToolCall, responses_schema.InputCall),
    (items.McpCall, mcp_schema.InputMcpCall),
    (items.McpListTools, mcp_schema.InputToolList),
    (items.McpApprovalRequest, mcp_schema.InputApprovalRequest),
    (blocks.TextBlock, anthropic_schema.TextBlock),
    (blocks.ThinkingBlock, anthropic_schema.ThinkingBlock),
    (blocks.ToolUseBlock, anthropic_schema.ToolUseBlock),
]
MARKED = {"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}
NEUTRAL = {
    **FUNCTION,
    "allowed_callers": ["direct"],
    "async": False,
    "defer_loading": False,
    "output_schema": None,
}
# Parts of bodies that clients send, what takes them, and where.
PARTS: list[tuple[str, Any, type[Body]]] = [
    (CHAT, chat.ChatCompletionContentPartTextParam, common.TextPart),
    (CHAT, chat.ChatCompletionSystemMessageParam, chat_schema.SystemMessage),
    (CHAT, chat.ChatCompletionUserMessageParam, chat_schema.UserMessage),
    (CHAT, chat.ChatCompletionAssistantMessageParam, chat_schema.AssistantMessage),
    (CHAT, chat.ChatCompletionToolMessageParam, chat_schema.ToolMessage),
    (CHAT, chat.ChatCompletionFunctionToolParam, chat_schema.Tool),
    (CHAT, chat.ChatCompletionStreamOptionsParam, common.StreamOptions),
    (CHAT, shared_params.FunctionDefinition, chat_schema.Function),
    (RESPONSES, responses.EasyInputMessageParam, responses_schema.InputMessage),
    (RESPONSES, responses.ResponseInputTextParam, responses_schema.InputText),
    (RESPONSES, inputs.FunctionCallOutput, responses_schema.InputResult),
    (RESPONSES, responses.FunctionToolParam, responses_schema.FunctionTool),
    (RESPONSES, tool_param.Mcp, mcp_schema.McpTool),
    (RESPONSES, shared_params.Reasoning, responses_schema.ReasoningSettings),
    (RESPONSES, responses.ResponseTextConfigParam, responses_schema.TextSettings),
    (MESSAGES, beta.BetaTextBlockParam, anthropic_schema.TextBlock),
    (MESSAGES, beta.BetaToolResultBlockParam, anthropic_schema.ToolResultBlock),
    (MESSAGES, beta.BetaToolParam, anthropic_schema.Tool),
    (MESSAGES, beta.BetaToolChoiceAutoParam, anthropic_schema.AnyChoice),
    (MESSAGES, beta.BetaToolChoiceToolParam, anthropic_schema.NamedChoice),
    (MESSAGES, beta.BetaThinkingConfigEnabledParam, anthropic_schema.ThinkingOn),
    (MESSAGES, beta.BetaThinkingConfigAdaptiveParam, anthropic_schema.ThinkingAsUsual),
    (MESSAGES, beta.BetaOutputConfigParam, anthropic_schema.OutputSettings),
    (MESSAGES, beta.BetaMetadataParam, anthropic_schema.Metadata),
]
SMALLEST = {
    **BODIES,
    CHAT: {"messages": [USER], "max_tokens": 1},
    COMPLETIONS: {"prompt": "x", "max_tokens": 1},
    INPUT_TOKENS: {"input": "?"},
}


def list_fields(schema: type[pydantic.BaseModel]) -> set[str]:
    return {field.alias or name for name, field in schema.model_fields.items()}


def list_refused() -> list[tuple[str, str]]:
    return sorted(
        {
            (path, name)
            for path, schema, method in METHODS
            for name in inspect.signature(method).parameters.keys() - TRANSPORT
            if name not in list_fields(schema)
        }
    )


@pytest.mark.parametrize(("path", "name"), list_refused())
def test_what_the_schema_does_not_have_is_refused_and_documented(
    server: ServerProcess, path: str, name: str
) -> None:
    for value in (None, "x", {}):
        reply = server.request(path, {**SMALLEST[path], name: value})
        assert reply.status == 400
        assert name in reply.json["error"]["message"]
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith(f"| `{path}` |")]
    is_general = any("all fields that do not change the prompt" in row for row in rows)
    assert is_general or any(f"`{name}`" in row.split("|")[2] for row in rows)


def list_missing() -> list[tuple[str, str, type[Body]]]:
    return [
        (path, name, ours)
        for path, theirs, ours in PARTS
        for name in sorted(get_type_hints(theirs).keys() - list_fields(ours))
    ]


@pytest.mark.parametrize(("path", "name", "ours"), list_missing())
def test_what_a_part_does_not_have_is_refused_and_documented(
    path: str, name: str, ours: type[Body]
) -> None:
    """The table left out fields inside of others, such as `prompt_cache_breakpoint` of a text."""
    with pytest.raises(pydantic.ValidationError) as caught:
        ours.model_validate({name: None})
    assert {"type": "extra_forbidden", "loc": (name,)} in [
        {key: error[key] for key in ("type", "loc")} for error in caught.value.errors()
    ]
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    row = "".join(line for line in lines if line.startswith(f"| `{path}` |"))
    assert f"`{name}`" in row or f".{name}`" in row


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"stream": True, "stream_options": {"include_obfuscation": False}}),
        (CHAT, {"stream": True, "stream_options": {"include_usage": None}}),
        (CHAT, {"messages": [{"role": "user", "content": [MARKED]}]}),
        (RESPONSES, {"input": [{"role": "user", "content": [{**MARKED, "type": "input_text"}]}]}),
        (RESPONSES, {"tools": [NEUTRAL]}),
        (RESPONSES, {"tools": [{**NEUTRAL, "allowed_callers": None, "async": None}]}),
    ],
)
def test_values_that_ask_for_nothing_else_are_accepted(
    server: ServerProcess, path: str, fields: dict[str, Any]
) -> None:
    """They were refused here and accepted by another endpoint."""
    assert server.request(path, {**SMALLEST[path], **fields}).status == 200


@pytest.mark.parametrize(("theirs", "ours"), ROUND_TRIPS)
def test_whole_objects_of_a_client_come_back(
    theirs: type[pydantic.BaseModel], ours: type[Body]
) -> None:
    """`namespace: null` of a call was refused, so that `model_dump` could not be sent back."""
    assert list_fields(theirs) <= list_fields(ours)


def test_all_levels_of_effort_are_known() -> None:
    """Chat completions refused `xhigh` and `max`, which responses took."""
    literal, _ = get_args(shared.ReasoningEffort)
    assert set(get_args(literal)) == set(get_args(Effort))
