"""Bodies of `POST /v1/responses`.

Source: openai-python, `types/responses/response_create_params.py`. Nothing is stored, so what
refers to stored responses, conversations or files is refused.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from glm_server.openai.mcp_schema import (
    InputApproval,
    InputApprovalRequest,
    InputMcpCall,
    InputToolList,
    McpTool,
)
from glm_server.schema import (
    ArgumentsSchema,
    Body,
    CacheBreakpoint,
    DirectCallers,
    Effort,
    SamplingFields,
    TokenCount,
    ToolName,
    UnsupportedFields,
)
from glm_server.settings import MAX_MESSAGES, MAX_TOOLS, MAX_TOP_LOGPROBS

ItemStatus = Literal["in_progress", "completed", "incomplete"]
Includable = Literal["message.output_text.logprobs", "reasoning.encrypted_content"]


class InputText(Body):
    """Text of a message or of a result."""

    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: CacheBreakpoint | None = Field(
        default=None, description="Has no effect: all prompts are cached."
    )


class OutputTextPart(Body):
    """Text of an earlier answer."""

    type: Literal["output_text"]
    text: str
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: list[Any] | None = Field(default=None, description="Has no effect.")


TextParts = list[Annotated[InputText | OutputTextPart, Field(discriminator="type")]]


class InputMessage(Body):
    """A message of anyone; those of the assistant are earlier answers."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | TextParts
    id: str | None = None
    status: ItemStatus | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class ReasoningText(Body):
    """A part of the reasoning before an earlier answer."""

    type: Literal["reasoning_text"]
    text: str


class InputReasoning(Body):
    """The reasoning before an earlier answer, as this server sent it."""

    type: Literal["reasoning"]
    content: Annotated[list[ReasoningText], Field(min_length=1)]
    summary: Annotated[list[Any], Field(max_length=0)] | None = None
    id: str | None = None
    status: ItemStatus | None = None
    encrypted_content: None = None


class InputCall(Body):
    """A call of a tool in an earlier answer."""

    type: Literal["function_call"]
    call_id: str
    name: ToolName
    arguments: str
    id: str | None = None
    status: ItemStatus | None = None
    # Clients that write whole objects send these, too.
    namespace: None = None
    caller: None = None
    async_: None = Field(default=None, alias="async")


class InputResult(Body):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputText]
    id: str | None = None
    status: ItemStatus | None = None
    # Clients that write whole objects send these, too.
    name: None = None
    namespace: None = None
    caller: None = None


def _complete_type(item: object) -> object:
    """Name the type of an item that leaves it out, as messages may."""
    return {"type": "message", **item} if isinstance(item, dict) else item


InputItem = (
    InputMessage
    | InputReasoning
    | InputCall
    | InputResult
    | InputToolList
    | InputMcpCall
    | InputApprovalRequest
    | InputApproval
)
InputItems = list[
    Annotated[InputItem, Field(discriminator="type"), BeforeValidator(_complete_type)]
]


class FunctionTool(Body):
    """A function that the model may call."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: ArgumentsSchema | None = None
    strict: bool | None = Field(
        default=None, description="Whether arguments must follow the schema; false by default."
    )
    # The only values of these that a model which calls tools itself and at once can follow.
    allowed_callers: DirectCallers | None = None
    async_: Literal[False] | None = Field(default=None, alias="async")
    defer_loading: Literal[False] | None = None
    output_schema: None = None


RequestTool = Annotated[FunctionTool | McpTool, Field(discriminator="type")]


class NamedFunction(Body):
    """The one function that the model must call."""

    type: Literal["function"]
    name: ToolName


class NamedServer(Body):
    """Tools of one of the operator's MCP servers, or one of them."""

    type: Literal["mcp"]
    server_label: str
    name: str | None = None


class AllowedTools(Body):
    """The tools that the model may use, and whether it must call one of them."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[
        list[Annotated[NamedFunction | NamedServer, Field(discriminator="type")]],
        Field(min_length=1, max_length=MAX_TOOLS),
    ]


class PlainFormat(Body):
    """Text or any JSON object."""

    type: Literal["text", "json_object"]


class SchemaFormat(Body):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextSettings(Body):
    """The form of the answer."""

    format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] | None = None
    verbosity: None = None


class ReasoningSettings(Body):
    """How much the model reasons: its chat template can only turn reasoning on or off."""

    effort: Effort | None = None
    summary: None = Field(
        default=None, description="Reasoning items hold the whole text; there are no summaries."
    )
    generate_summary: None = None


class ResponseStreamOptions(Body):
    """What a stream holds besides the answer."""

    include_obfuscation: Literal[False] | None = None


class ResponsePromptFields(Body):
    """The fields that determine the prompt of a response, and those that count it."""

    input: str | Annotated[InputItems, Field(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    instructions: str | None = None
    tools: Annotated[list[RequestTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    text: TextSettings | None = None
    reasoning: ReasoningSettings | None = None
    truncation: Literal["disabled"] | None = None
    previous_response_id: None = None
    conversation: None = None

    @property
    def must_call(self) -> bool:
        """Whether the model must call a tool."""
        choice = self.tool_choice
        if isinstance(choice, AllowedTools):
            return choice.mode == "required"
        return choice == "required" or isinstance(choice, NamedFunction)

    @property
    def chosen(self) -> list[NamedFunction | NamedServer] | None:
        """What `tool_choice` lists; `None` if it lists nothing."""
        if isinstance(self.tool_choice, NamedFunction):
            return [self.tool_choice]
        return self.tool_choice.tools if isinstance(self.tool_choice, AllowedTools) else None

    def allows(self, server: str, tool: str) -> bool:
        """Return whether `tool_choice` lets the model call a tool of a server."""
        if self.chosen is None:
            return self.tool_choice != "none"
        named = [one for one in self.chosen if isinstance(one, NamedServer)]
        return any(one.server_label == server and one.name in (None, tool) for one in named)

    @model_validator(mode="after")
    def _require_tools(self) -> "ResponsePromptFields":
        """Refuse a choice among tools that are not there."""
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise ValueError("tool_choice asks for a tool but tools is empty")
        names = {tool.name for tool in self.tools or [] if isinstance(tool, FunctionTool)}
        labels = {tool.server_label for tool in self.tools or [] if isinstance(tool, McpTool)}
        for one in self.chosen or []:
            is_known = (
                one.name in names if isinstance(one, NamedFunction) else one.server_label in labels
            )
            if not is_known:
                raise ValueError("tool_choice names a tool that tools does not have")
        return self


class ResponseRequest(ResponsePromptFields, SamplingFields, UnsupportedFields):
    """Body of `POST /v1/responses`."""

    max_output_tokens: TokenCount | None = None
    include: list[Includable] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    background: Literal[False] | None = None
    prompt: None = None
    max_tool_calls: None = None

    @property
    def has_logprobs(self) -> bool:
        """Whether the answer has log-probabilities."""
        return "message.output_text.logprobs" in (self.include or [])

    @model_validator(mode="after")
    def _require_use(self) -> "ResponseRequest":
        """Refuse fields that would have no effect."""
        if self.top_logprobs and not self.has_logprobs:
            raise ValueError(
                "top_logprobs has no effect without include: ['message.output_text.logprobs']"
            )
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options has no effect without stream: true")
        return self
