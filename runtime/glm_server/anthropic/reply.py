"""What `POST /v1/messages` answers. Source: anthropic-sdk-python, `types/message.py`."""

from typing import Annotated, Any, Literal

from pydantic import Field

from glm_server.schema import Reply

# Clients send reasoning back with its signature. Nothing is signed here, and nothing checked.
SIGNATURE = "unsigned"
StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]


class ReplyText(Reply):
    """Text."""

    type: Literal["text"] = "text"
    text: str = ""
    citations: None = None


class ReplyThinking(Reply):
    """The reasoning before the answer."""

    type: Literal["thinking"] = "thinking"
    thinking: str = ""
    signature: str = ""


class ReplyToolUse(Reply):
    """A call of a tool."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any] = Field(default_factory=dict)


ReplyBlock = Annotated[ReplyText | ReplyThinking | ReplyToolUse, Field(discriminator="type")]


class OutputTokensDetails(Reply):
    """What the answer's tokens were."""

    thinking_tokens: int = 0


class Usage(Reply):
    """Number of tokens; the prompt's tokens are either new or read from the cache."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputTokensDetails


class MessageReply(Reply):
    """Response of `POST /v1/messages`."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[ReplyBlock] = Field(default_factory=list)
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: Usage


class TokenCountReply(Reply):
    """Response of `POST /v1/messages/count_tokens`."""

    input_tokens: int
