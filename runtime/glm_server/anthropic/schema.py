"""Bodies of `POST /v1/messages` and `POST /v1/messages/count_tokens`.

Source: anthropic-sdk-python, `types/message_create_params.py`. `temperature`, `top_k` and `top_p`
are in the API's reference.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from glm_server.schema import (
    ArgumentsSchema,
    Body,
    DirectCallers,
    StopTexts,
    TokenCount,
    ToolName,
)
from glm_server.settings import MAX_MESSAGES, MAX_TOOLS

MIN_THINKING_TOKENS = 1024  # the API's own limit
CallId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
Unused = Annotated[list[Any], Field(max_length=0)]


class CacheControl(Body):
    """A mark where a prefix is to be cached. It has no effect: all prompts are cached."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Block(Body):
    """A part of a message."""

    cache_control: CacheControl | None = Field(
        default=None, description="Has no effect: all prompts are cached."
    )


class DirectCaller(Body):
    """The model itself called the tool."""

    type: Literal["direct"]


class TextBlock(Block):
    """Text."""

    type: Literal["text"]
    text: str
    citations: Unused | None = None


class ThinkingBlock(Block):
    """The reasoning before an earlier answer."""

    type: Literal["thinking"]
    thinking: str
    signature: str = Field(default="", description="Is not checked.")


class ToolUseBlock(Block):
    """A call of a tool in an earlier answer."""

    type: Literal["tool_use"]
    id: CallId
    name: ToolName
    input: dict[str, Any]
    caller: DirectCaller | None = None
    toolset_name: None = None


class ToolResultBlock(Block):
    """The result of a call."""

    type: Literal["tool_result"]
    tool_use_id: CallId
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None
    toolset_name: None = None


UserBlock = Annotated[TextBlock | ToolResultBlock, Field(discriminator="type")]
AssistantBlock = Annotated[TextBlock | ThinkingBlock | ToolUseBlock, Field(discriminator="type")]


class SystemMessage(Body):
    """Instructions to the model inside of the conversation."""

    role: Literal["system"]
    content: str | list[TextBlock]


class UserMessage(Body):
    """What a user says, and results of calls."""

    role: Literal["user"]
    content: str | Annotated[list[UserBlock], Field(min_length=1)]


class AssistantMessage(Body):
    """An earlier answer, or the beginning of the answer if it is the last message."""

    role: Literal["assistant"]
    content: str | Annotated[list[AssistantBlock], Field(min_length=1)]


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class Tool(Body):
    """A tool that the client runs."""

    type: Literal["custom"] | None = None
    name: ToolName
    description: str | None = None
    input_schema: ArgumentsSchema
    cache_control: CacheControl | None = Field(
        default=None, description="Has no effect: all prompts are cached."
    )
    strict: bool | None = Field(
        default=None, description="Whether input must follow the schema; false by default."
    )
    eager_input_streaming: bool | None = Field(
        default=None, description="Has no effect: streams always send input while it arrives."
    )
    defer_loading: Literal[False] | None = None
    allowed_callers: DirectCallers | None = None


class AnyChoice(Body):
    """Whether the model may or must call tools."""

    type: Literal["auto", "any"]
    disable_parallel_tool_use: bool | None = None


class NamedChoice(Body):
    """The one tool that the model must call."""

    type: Literal["tool"]
    name: ToolName
    disable_parallel_tool_use: bool | None = None


class NoChoice(Body):
    """The model must not call tools."""

    type: Literal["none"]


class ThinkingOn(Body):
    """The model reasons before it answers."""

    type: Literal["enabled"]
    budget_tokens: Annotated[int, Field(ge=MIN_THINKING_TOKENS)]
    display: Literal["summarized"] | None = Field(
        default=None, description="Reasoning is always sent as a whole."
    )


class ThinkingAsUsual(Body):
    """The model's chat template decides whether the model reasons."""

    type: Literal["adaptive"]
    display: Literal["summarized"] | None = Field(
        default=None, description="Reasoning is always sent as a whole."
    )


class ThinkingOff(Body):
    """The model answers without reasoning."""

    type: Literal["disabled"]


class SchemaFormat(Body):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputSettings(Body):
    """The form of the answer."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = Field(
        default=None, description="Has no effect: chat templates only turn reasoning on or off."
    )
    format: SchemaFormat | None = None


class Metadata(Body):
    """Who asks. It has no effect."""

    user_id: str | None = None


class PromptFields(Body):
    """The fields that determine the prompt."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: (
        Annotated[AnyChoice | NamedChoice | NoChoice, Field(discriminator="type")] | None
    ) = None
    thinking: (
        Annotated[ThinkingOn | ThinkingAsUsual | ThinkingOff, Field(discriminator="type")] | None
    ) = None
    output_config: OutputSettings | None = None
    cache_control: CacheControl | None = Field(
        default=None, description="Has no effect: all prompts are cached."
    )

    @model_validator(mode="after")
    def _require_tools(self) -> "PromptFields":
        """Refuse a choice among tools that are not there."""
        names = [tool.name for tool in self.tools or []]
        choice = self.tool_choice
        if choice is not None and choice.type in ("any", "tool") and not names:
            raise ValueError("tool_choice asks for a tool but tools is empty")
        if isinstance(choice, NamedChoice) and choice.name not in names:
            raise ValueError("tool_choice names a tool that tools does not have")
        return self


class CountRequest(PromptFields):
    """Body of `POST /v1/messages/count_tokens`."""


class MessageRequest(PromptFields):
    """Body of `POST /v1/messages`."""

    max_tokens: TokenCount
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    stop_sequences: StopTexts | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    speed: Literal["standard"] | None = None

    @model_validator(mode="after")
    def _require_room(self) -> "MessageRequest":
        """Refuse a budget of reasoning that leaves no room for an answer, as the API does."""
        thinking = self.thinking
        if isinstance(thinking, ThinkingOn) and thinking.budget_tokens >= self.max_tokens:
            raise ValueError("max_tokens must be greater than thinking.budget_tokens")
        return self
