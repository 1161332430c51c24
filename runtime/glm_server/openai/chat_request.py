"""The body of a chat completion to a question in the runtime's terms."""

import dataclasses
from typing import Any

from glm_server.openai.chat_schema import (
    ChatCompletionRequest,
    ChatPromptFields,
    Message,
)
from glm_server.questions import OfferedTool, Question, read_effort
from glm_server.schema import TextPart, read_biases, read_sampling, read_stop


def read_question(body: ChatCompletionRequest) -> Question:
    """Return the question of a chat completion."""
    answer = None if body.response_format is None else body.response_format.schema_of_answer
    return dataclasses.replace(
        read_prompt(body),
        settings=_read_settings(body),
        must_call=body.must_call,
        is_single=body.parallel_tool_calls is False,
        answer_schema=answer,
        streams_calls=bool(body.stream),
    )


def read_prompt(body: ChatPromptFields) -> Question:
    """Return the question without the settings of its answer."""
    continues = body.messages[-1].role == "assistant" and body.continue_final_message is not False
    variables = body.chat_template_kwargs
    thinking = None if variables is None else variables.enable_thinking
    return Question(
        [describe_message(one) for one in body.messages],
        tools=_offer_tools(body),
        enable_thinking=read_effort(body.reasoning_effort) if thinking is None else thinking,
        continues_answer=continues,
    )


def describe_message(message: Message) -> dict[str, Any]:
    """Return a message as the runtime takes it."""
    described = message.model_dump(exclude_none=True)
    if message.role == "developer":
        described["role"] = "system"
    if isinstance(message.content, list):
        described["content"] = join_parts(message.content)
    return described


def join_parts(parts: list[TextPart]) -> str:
    """Return the text of all parts."""
    return "".join(part.text for part in parts)


def _offer_tools(body: ChatPromptFields) -> list[OfferedTool]:
    """Return the tools that the model may call."""
    if body.tool_choice == "none":
        return []
    functions = [tool.function for tool in body.tools or []]
    if (names := body.chosen_names) is not None:
        functions = [function for function in functions if function.name in names]
    return [
        OfferedTool(one.name, one.description, one.parameters, bool(one.strict))
        for one in functions
    ]


def _read_settings(body: ChatCompletionRequest) -> dict[str, Any]:
    return {
        **read_sampling(body),
        "max_new_tokens": body.max_completion_tokens or body.max_tokens,
        "max_thinking_tokens": body.thinking_token_budget,
        "stop": read_stop(body.stop),
        "logit_bias": read_biases(body.logit_bias),
        "top_logprobs": (body.top_logprobs or 0) if body.logprobs else None,
    }
