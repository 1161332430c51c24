"""The body of a chat completion to the runtime's messages, options and settings."""

from collections.abc import Mapping
from typing import Any

from glm_runtime import ChatOptions, Model
from glm_runtime.answering.generation import Request
from glm_runtime.answering.keywords import make_settings
from glm_runtime.answering.settings import GenerationSettings
from glm_runtime.errors import PromptError
from glm_runtime.sampling.structured import Grammar
from glm_runtime.text.chat_prompt import ChatPrompt
from glm_server.forms import make_grammar
from glm_server.openai.chat_schema import (
    ChatCompletionRequest,
    ChatPromptFields,
    Message,
    NamedToolChoice,
    Tool,
)
from glm_server.schema import TextPart, number_seed, read_biases, read_sampling, read_stop

_WITHOUT_THINKING = ("none", "minimal")


def make_requests(model: Model, body: ChatCompletionRequest) -> list[Request]:
    """Return one request per choice.

    Raises:
        GlmRuntimeError: the prompt or a setting is refused.
    """
    prompt = prepare_chat(model, body)
    settings = read_settings(body)
    return [
        Request(prompt.token_ids, number_seed(settings, index), prompt.form)
        for index in range(body.n or 1)
    ]


def prepare_chat(model: Model, body: ChatPromptFields) -> ChatPrompt:
    """Render and encode the messages.

    Raises:
        PromptError: the chat template refuses them.
    """
    return model.prepare_chat(
        [describe_message(one) for one in body.messages], _options(model, body)
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


def offer_tools(body: ChatPromptFields) -> list[Tool]:
    """Return the tools that the model may call."""
    if body.tool_choice == "none":
        return []
    tools = body.tools or []
    if isinstance(body.tool_choice, NamedToolChoice):
        name = body.tool_choice.function.name
        return [tool for tool in tools if tool.function.name == name]
    return tools


def _options(model: Model, body: ChatPromptFields) -> ChatOptions:
    continues = body.messages[-1].role == "assistant" and body.continue_final_message is not False
    return ChatOptions(
        tools=tuple(one.model_dump(exclude_none=True) for one in offer_tools(body)),
        enable_thinking=_choose_thinking(model, body),
        continues_answer=continues,
        is_sanitized=True,
    )


def _choose_thinking(model: Model, body: ChatPromptFields) -> bool | None:
    """Return the value of `enable_thinking`.

    Raises:
        PromptError: the chat template has no switch for reasoning.
    """
    variables = body.chat_template_kwargs
    chosen = None if variables is None else variables.enable_thinking
    if chosen is None and body.reasoning_effort is not None:
        chosen = body.reasoning_effort not in _WITHOUT_THINKING
    template = model.chat_template
    if chosen is not None and template is not None and not template.reads_thinking:
        raise PromptError(
            "the model's chat template has no switch for reasoning; leave out enable_thinking and "
            "reasoning_effort."
        )
    return chosen


def read_settings(body: ChatCompletionRequest) -> GenerationSettings:
    """Return the settings of the answer, without what the body leaves out."""
    return make_settings(
        None,
        {
            **read_sampling(body),
            "max_new_tokens": body.max_completion_tokens or body.max_tokens,
            "max_thinking_tokens": body.thinking_token_budget,
            "stop": read_stop(body.stop),
            "logit_bias": read_biases(body.logit_bias),
            "top_logprobs": (body.top_logprobs or 0) if body.logprobs else None,
            "grammar": _make_grammar(body),
        },
    )


def _make_grammar(body: ChatCompletionRequest) -> Grammar | None:
    must_call = body.tool_choice == "required" or isinstance(body.tool_choice, NamedToolChoice)
    tools = {tool.function.name: _schema_of(tool) for tool in offer_tools(body)}
    answer = None if body.response_format is None else body.response_format.schema_of_answer
    is_single = body.parallel_tool_calls is False
    return make_grammar(answer, tools, must_call=must_call, is_single=is_single)


def _schema_of(tool: Tool) -> Mapping[str, Any]:
    return tool.function.parameters or {"type": "object", "properties": {}}
