"""The body of a response to a question in the runtime's terms."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from glm_server.ids import make_id
from glm_server.openai.mcp_schema import (
    InputApproval,
    InputApprovalRequest,
    InputMcpCall,
    InputToolList,
)
from glm_server.openai.mcp_tools import McpTools
from glm_server.openai.responses_schema import (
    FunctionTool,
    InputCall,
    InputMessage,
    InputReasoning,
    InputResult,
    InputText,
    NamedFunction,
    OutputTextPart,
    ResponsePromptFields,
    ResponseRequest,
    SchemaFormat,
)
from glm_server.questions import OfferedTool, Question, read_effort
from glm_server.schema import read_sampling

PlainItem = InputMessage | InputReasoning | InputCall | InputResult


def read_question(body: ResponseRequest, tools: McpTools) -> Question:
    """Return the question of a body.

    Args:
        body: the body, without requests for approvals; see `run_approved`.
        tools: the operator's tools that the model may call.
    """
    settings = {
        **read_sampling(body),
        "max_new_tokens": body.max_output_tokens,
        "top_logprobs": (body.top_logprobs or 0) if body.has_logprobs else None,
    }
    return dataclasses.replace(
        read_prompt(body, tools), settings=settings, streams_calls=bool(body.stream)
    )


def read_prompt(body: ResponsePromptFields, tools: McpTools) -> Question:
    """Return the question of a body without the settings of its answer."""
    return Question(
        _read_messages(body, tools),
        tools=_offer_tools(body),
        offers=tools.offers,
        must_call=body.must_call,
        is_single=body.parallel_tool_calls is False,
        answer_schema=_read_schema(body),
        enable_thinking=None if body.reasoning is None else read_effort(body.reasoning.effort),
    )


def _read_messages(body: ResponsePromptFields, tools: McpTools) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if body.instructions is not None:
        messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*messages, {"role": "user", "content": body.input}]
    for item in body.input:
        if isinstance(item, InputMcpCall):
            _add_mcp_call(item, tools, messages)
        elif not isinstance(item, InputToolList | InputApprovalRequest | InputApproval):
            _add_item(item, messages)
    return messages


def _add_mcp_call(item: InputMcpCall, tools: McpTools, messages: list[dict[str, Any]]) -> None:
    """Add a call of the operator's tool and its result."""
    id_ = item.id or make_id("mcp")
    name = tools.known.get((item.server_label, item.name), item.name)
    # Not checked, because names of MCP tools may be longer than those of functions.
    call = InputCall.model_construct(
        type="function_call", call_id=id_, name=name, arguments=item.arguments
    )
    _add_item(call, messages)
    error = json.dumps(item.error, ensure_ascii=False) if item.error else ""
    if item.error and isinstance(item.error.get("content"), str):
        error = item.error["content"]
    result = item.output if item.output is not None else error
    messages.append({"role": "tool", "tool_call_id": id_, "content": result})


def _add_item(item: PlainItem, messages: list[dict[str, Any]]) -> None:
    """Add an item to the messages; the items of one answer become one message."""
    if isinstance(item, InputResult):
        result = {"role": "tool", "tool_call_id": item.call_id, "content": _join(item.output)}
        messages.append(result)
    elif isinstance(item, InputMessage) and item.role != "assistant":
        role = "user" if item.role == "user" else "system"
        messages.append({"role": role, "content": _join(item.content)})
    else:
        if not messages or not _is_continued(messages[-1], item):
            messages.append({"role": "assistant", "content": ""})
        _add_to_answer(item, messages[-1])


def _is_continued(last: dict[str, Any], item: PlainItem) -> bool:
    """Return whether an item belongs to the same answer as the ones before it."""
    if last["role"] != "assistant" or isinstance(item, InputReasoning):
        return False
    # A second message is an answer of its own, except after calls, whose results are to follow.
    return isinstance(item, InputCall) or not last["content"] or "tool_calls" in last


def _add_to_answer(item: InputMessage | InputReasoning | InputCall, answer: dict[str, Any]) -> None:
    if isinstance(item, InputReasoning):
        answer["reasoning_content"] = "".join(part.text for part in item.content)
    elif isinstance(item, InputCall):
        function = {"name": item.name, "arguments": item.arguments}
        call = {"id": item.call_id, "type": "function", "function": function}
        answer.setdefault("tool_calls", []).append(call)
    else:
        texts = (answer["content"], _join(item.content))
        answer["content"] = "\n".join(text for text in texts if text)


def _join(content: str | Sequence[InputText | OutputTextPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _offer_tools(body: ResponsePromptFields) -> list[OfferedTool]:
    """Return the tools that the model may call."""
    if body.tool_choice == "none":
        return []
    tools = [tool for tool in body.tools or [] if isinstance(tool, FunctionTool)]
    if body.chosen is not None:
        names = {one.name for one in body.chosen if isinstance(one, NamedFunction)}
        tools = [tool for tool in tools if tool.name in names]
    return [
        OfferedTool(tool.name, tool.description, tool.parameters, bool(tool.strict))
        for tool in tools
    ]


def _read_schema(body: ResponsePromptFields) -> dict[str, Any] | None:
    """Return the JSON schema that the answer must match."""
    form = None if body.text is None else body.text.format
    if isinstance(form, SchemaFormat):
        return form.schema_
    return {"type": "object"} if form is not None and form.type == "json_object" else None
