"""Bodies of `POST /v1/completions`.

Source: openai-python, `types/completion_create_params.py`.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from glm_server.openai.chat_schema import Bias, TokenIdText, Usage
from glm_server.schema import (
    Reply,
    SamplingFields,
    StopText,
    StopTexts,
    StreamFields,
    UnsupportedFields,
)
from glm_server.settings import MAX_BIASES, MAX_CHOICES, MAX_PROMPTS, MAX_TOP_LOGPROBS

TokenId = Annotated[int, Field(ge=0)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]
Prompts = Annotated[list[str] | list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]


class CompletionRequest(SamplingFields, StreamFields, UnsupportedFields):
    """Body of `POST /v1/completions`."""

    prompt: str | TokenIds | Prompts
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description="16 if it is left out, as OpenAI's. 0 needs echo."
    )
    stop: StopText | StopTexts | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    best_of: Literal[1] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    logit_bias: Annotated[dict[TokenIdText, Bias], Field(max_length=MAX_BIASES)] | None = None
    echo: bool | None = Field(
        None,
        description="Begin the answer with the prompt; with logprobs, the prompt's tokens have "
        "log-probabilities, too.",
    )
    suffix: None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """All prompts."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[id_ for id_ in self.prompt if isinstance(id_, int)]]
        return [prompt for prompt in self.prompt if not isinstance(prompt, int)]

    @model_validator(mode="after")
    def _require_use(self) -> "CompletionRequest":
        """Refuse fields that would have no effect, and too many answers."""
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens: 0 leaves nothing to answer without echo: true")
        if len(self.prompts) * (self.n or 1) > MAX_PROMPTS:
            raise ValueError(f"prompts times n is limited to {MAX_PROMPTS}")
        return self


class CompletionLogprobs(Reply):
    """Log-probabilities in the form of this endpoint; the first token of a prompt has none."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(Reply):
    """One of the answers."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class Completion(Reply):
    """Response of `POST /v1/completions` without `stream`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage
