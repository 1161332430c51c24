"""What `POST /v1/responses` answers. Source: openai-python, `types/responses/response.py`."""

from typing import Any, Literal

from pydantic import Field

from glm_server.openai.chat_schema import TokenLogprob
from glm_server.openai.mcp_schema import (
    McpTool,
    OutputApprovalRequest,
    OutputMcpCall,
    OutputToolList,
)
from glm_server.openai.responses_schema import (
    AllowedTools,
    FunctionTool,
    ItemStatus,
    NamedFunction,
    ReasoningSettings,
    TextSettings,
)
from glm_server.schema import Reply


class OutputText(Reply):
    """The text of a message."""

    type: Literal["output_text"] = "output_text"
    text: str = ""
    annotations: list[Any] = Field(default_factory=list)
    logprobs: list[TokenLogprob] = Field(default_factory=list)


class OutputMessage(Reply):
    """A message of the model."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: ItemStatus = "in_progress"
    content: list[OutputText] = Field(default_factory=list)


class OutputReasoningText(Reply):
    """The text of the reasoning."""

    type: Literal["reasoning_text"] = "reasoning_text"
    text: str = ""


class OutputReasoning(Reply):
    """The reasoning before a message, as a whole."""

    id: str
    type: Literal["reasoning"] = "reasoning"
    status: ItemStatus = "in_progress"
    summary: list[Any] = Field(default_factory=list)
    content: list[OutputReasoningText] = Field(default_factory=list)


class OutputCall(Reply):
    """A call of a tool."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: ItemStatus = "in_progress"
    call_id: str
    name: str
    arguments: str = ""


OutputItem = (
    OutputMessage
    | OutputReasoning
    | OutputCall
    | OutputToolList
    | OutputMcpCall
    | OutputApprovalRequest
)
ErrorCode = Literal["server_error", "invalid_prompt"]
ResponseStatus = Literal["in_progress", "completed", "incomplete", "failed"]


class InputTokensDetails(Reply):
    """Where the prompt's tokens came from."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(Reply):
    """What the answer's tokens were."""

    reasoning_tokens: int


class ResponseUsage(Reply):
    """Number of tokens."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class InputTokenCount(Reply):
    """Response of `POST /v1/responses/input_tokens`."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class IncompleteDetails(Reply):
    """Why an answer is incomplete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseError(Reply):
    """Why an answer failed."""

    code: ErrorCode
    message: str


class ResponseReply(Reply):
    """Response of `POST /v1/responses`, which is not stored."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: ResponseStatus = "in_progress"
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    model: str
    output: list[OutputItem] = Field(default_factory=list)
    usage: ResponseUsage | None = None
    instructions: str | None
    max_output_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_logprobs: int
    text: TextSettings
    reasoning: ReasoningSettings
    tools: list[FunctionTool | McpTool]
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | AllowedTools
    parallel_tool_calls: bool
    metadata: dict[str, str]
    previous_response_id: None = None
    background: Literal[False] = False
    store: Literal[False] = False
    truncation: Literal["disabled"] = "disabled"
    service_tier: Literal["default"] = "default"
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
