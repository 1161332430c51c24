"""Bodies of `POST /v1/chat/completions`.

Source: openai-python, `types/chat/completion_create_params.py`. `continue_final_message`,
`chat_template_kwargs`, `top_k`, `min_p`, `repetition_penalty`, `thinking_token_budget` and
`reasoning_content` have the names that other servers gave them.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from glm_server.schema import (
    ArgumentsSchema,
    Body,
    Effort,
    Reply,
    ResponseFormat,
    SamplingFields,
    StopText,
    StopTexts,
    StreamFields,
    TemplateVariables,
    TextPart,
    TokenCount,
    ToolName,
    UnsupportedFields,
)
from glm_server.settings import (
    MAX_BIASES,
    MAX_CHOICES,
    MAX_MESSAGES,
    MAX_TOOLS,
    MAX_TOP_LOGPROBS,
)

Content = str | list[TextPart]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenIdText = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]


class FunctionCall(Body):
    """The function that a call names."""

    name: ToolName
    arguments: str = ""


class MessageToolCall(Body):
    """A call in an assistant's message."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None


class SystemMessage(Body):
    """Instructions to the model."""

    role: Literal["system", "developer"]
    content: Content


class UserMessage(Body):
    """What a user says."""

    role: Literal["user"]
    content: Content


class AssistantMessage(Body):
    """An earlier answer, or the beginning of the answer if it is the last message."""

    role: Literal["assistant"]
    content: Content | None = None
    reasoning_content: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _require_content(self) -> "AssistantMessage":
        if self.content is None and not self.tool_calls:
            raise ValueError("content or tool_calls is expected")
        return self


class ToolMessage(Body):
    """The result of a call."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str
    name: str | None = None


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class Function(Body):
    """A function that the model may call."""

    name: ToolName
    description: str | None = None
    parameters: ArgumentsSchema | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool that the model may use."""

    type: Literal["function"]
    function: Function


class FunctionName(Body):
    """The name of a function."""

    name: ToolName


class NamedToolChoice(Body):
    """The one tool that the model must use."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(Body):
    """Some of the tools, and whether the model must call one of them."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedToolChoice], Field(min_length=1, max_length=MAX_TOOLS)]


class AllowedToolsChoice(Body):
    """The tools that the model may use."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class ChatPromptFields(Body):
    """The fields that determine the prompt of a chat completion."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: (
        Literal["none", "auto", "required"] | NamedToolChoice | AllowedToolsChoice | None
    ) = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: TemplateVariables | None = None
    continue_final_message: bool | None = None

    @property
    def must_call(self) -> bool:
        """Whether the model must call a tool."""
        choice = self.tool_choice
        if isinstance(choice, AllowedToolsChoice):
            return choice.allowed_tools.mode == "required"
        return choice == "required" or isinstance(choice, NamedToolChoice)

    @property
    def chosen_names(self) -> list[str] | None:
        """The names of the tools that `tool_choice` lists; `None` if it lists none."""
        if isinstance(self.tool_choice, NamedToolChoice):
            return [self.tool_choice.function.name]
        if isinstance(self.tool_choice, AllowedToolsChoice):
            return [one.function.name for one in self.tool_choice.allowed_tools.tools]
        return None

    @model_validator(mode="after")
    def _require_tools(self) -> "ChatPromptFields":
        """Refuse a choice among tools that are not there, and nothing to continue."""
        names = [tool.function.name for tool in self.tools or []]
        if self.tool_choice not in (None, "none", "auto") and not names:
            raise ValueError("tool_choice asks for a tool but tools is empty")
        if not set(names).issuperset(self.chosen_names or ()):
            raise ValueError("tool_choice names a tool that tools does not have")
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise ValueError("continue_final_message needs a last message of the assistant")
        return self


class ChatCompletionRequest(ChatPromptFields, SamplingFields, StreamFields, UnsupportedFields):
    """Body of `POST /v1/chat/completions`."""

    max_completion_tokens: TokenCount | None = None
    max_tokens: TokenCount | None = None
    stop: StopText | StopTexts | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    logit_bias: Annotated[dict[TokenIdText, Bias], Field(max_length=MAX_BIASES)] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    thinking_token_budget: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _require_use(self) -> "ChatCompletionRequest":
        """Refuse fields that would have no effect."""
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs has no effect without logprobs: true")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens are both given; choose one")
        return self


class TopLogprob(Reply):
    """One of the most likely tokens at a position."""

    token: str
    bytes: list[int]
    logprob: float


class TokenLogprob(TopLogprob):
    """The chosen token at a position."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Reply):
    """Log-probabilities of the answer's tokens, without those of the reasoning."""

    content: list[TokenLogprob]
    refusal: None = None


class CalledFunction(Reply):
    """Name and JSON arguments of a call."""

    name: str
    arguments: str


class ReplyToolCall(Reply):
    """A call of a tool."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ReplyMessage(Reply):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | None = None
    tool_calls: list[ReplyToolCall] | None = None

    @model_serializer(mode="wrap")
    def _leave_out(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what there is none of, except the content."""
        written: dict[str, Any] = write(self)
        optional = ("reasoning_content", "tool_calls")
        return {k: v for k, v in written.items() if v is not None or k not in optional}


ChatFinishReason = Literal["stop", "length", "tool_calls"]


class Choice(Reply):
    """One of the answers."""

    index: int
    message: ReplyMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: ChatFinishReason


class PromptTokensDetails(Reply):
    """Where the prompt's tokens came from."""

    cached_tokens: int


class CompletionTokensDetails(Reply):
    """What the answer's tokens were."""

    reasoning_tokens: int


class Usage(Reply):
    """Number of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class ChatCompletion(Reply):
    """Response of `POST /v1/chat/completions` without `stream`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage
