"""Anthropic's bodies to a question in the runtime's terms."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

from glm_runtime.errors import PromptError
from glm_server.anthropic.schema import (
    AnyChoice,
    Block,
    Message,
    MessageRequest,
    NamedChoice,
    PromptFields,
    TextBlock,
    ThinkingBlock,
    ThinkingOff,
    ThinkingOn,
    ToolResultBlock,
    ToolUseBlock,
)
from glm_server.questions import OfferedTool, Question

_FAILURE = "Error: "


def read_question(body: MessageRequest) -> Question:
    """Return the question of a body.

    Raises:
        PromptError: a message cannot be translated.
    """
    thinking = body.thinking
    budget = thinking.budget_tokens if isinstance(thinking, ThinkingOn) else None
    settings = {
        "max_new_tokens": body.max_tokens,
        "max_thinking_tokens": budget,
        "temperature": body.temperature,
        "top_k": body.top_k,
        "top_p": body.top_p,
        "stop": body.stop_sequences,
    }
    return dataclasses.replace(
        read_prompt(body), settings=settings, streams_calls=bool(body.stream)
    )


def read_prompt(body: PromptFields) -> Question:
    """Return the question without the settings of its answer.

    Raises:
        PromptError: a message cannot be translated.
    """
    choice = body.tool_choice
    form = None if body.output_config is None else body.output_config.format
    is_single = isinstance(choice, AnyChoice | NamedChoice) and choice.disable_parallel_tool_use
    return Question(
        list(_read_messages(body)),
        tools=_offer_tools(body),
        must_call=choice is not None and choice.type in ("any", "tool"),
        is_single=bool(is_single),
        answer_schema=None if form is None else form.schema_,
        enable_thinking=_read_thinking(body),
        continues_answer=body.messages[-1].role == "assistant",
    )


def _read_thinking(body: PromptFields) -> bool | None:
    if isinstance(body.thinking, ThinkingOn):
        return True
    return False if isinstance(body.thinking, ThinkingOff) else None


def _offer_tools(body: PromptFields) -> list[OfferedTool]:
    """Return the tools that the model may call."""
    choice = body.tool_choice
    if choice is not None and choice.type == "none":
        return []
    tools = body.tools or []
    if isinstance(choice, NamedChoice):
        tools = [tool for tool in tools if tool.name == choice.name]
    return [
        OfferedTool(tool.name, tool.description, tool.input_schema, bool(tool.strict))
        for tool in tools
    ]


def _read_messages(body: PromptFields) -> Iterable[dict[str, Any]]:
    """Yield the runtime's messages; consecutive messages of one role become one, as in the API."""
    if body.system is not None:
        yield {"role": "system", "content": _join(body.system)}
    for role, group in itertools.groupby(body.messages, key=lambda one: one.role):
        blocks = [block for message in group for block in _list_blocks(message)]
        if role == "user":
            yield from _read_user(blocks)
        elif role == "assistant":
            yield _read_assistant(blocks)
        else:
            yield {"role": role, "content": _join_texts(blocks)}


def _list_blocks(message: Message) -> Sequence[Block]:
    content = message.content
    return [TextBlock(type="text", text=content)] if isinstance(content, str) else content


def _read_user(blocks: Sequence[Block]) -> Iterable[dict[str, Any]]:
    """Yield the results of calls, and then what the user says.

    Raises:
        PromptError: a result does not come first.
    """
    is_result = [isinstance(block, ToolResultBlock) for block in blocks]
    if is_result != sorted(is_result, reverse=True):
        raise PromptError(
            "a tool_result follows a text where results are expected first; put the results of "
            "calls before the text of the message."
        )
    for block in blocks:
        if isinstance(block, ToolResultBlock):
            content = _join(block.content or "")
            content = _FAILURE + content if block.is_error else content
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}
    if not all(is_result):
        yield {"role": "user", "content": _join_texts(blocks)}


def _read_assistant(blocks: Sequence[Block]) -> dict[str, Any]:
    thoughts = [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]
    calls = [_read_call(block) for block in blocks if isinstance(block, ToolUseBlock)]
    message: dict[str, Any] = {"role": "assistant", "content": _join_texts(blocks)}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _read_call(block: ToolUseBlock) -> dict[str, Any]:
    # With the separators of json.dumps, as GLM writes arguments: the prefix cache compares texts.
    arguments = json.dumps(block.input, ensure_ascii=False)
    function = {"name": block.name, "arguments": arguments}
    return {"id": block.id, "type": "function", "function": function}


def _join(content: str | Sequence[TextBlock]) -> str:
    return content if isinstance(content, str) else _join_texts(content)


def _join_texts(blocks: Sequence[Block]) -> str:
    """Return the texts among blocks, each on lines of its own."""
    return "\n".join(block.text for block in blocks if isinstance(block, TextBlock))
