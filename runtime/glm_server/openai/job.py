"""Answers in progress: what has arrived, and what it costs in tokens."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from glm_runtime.answering.events import Started
from glm_runtime.answering.settings import Piece
from glm_runtime.sampling.logprobs import TokenLogprobs
from glm_runtime.text.tool_calls import ToolCall
from glm_server.answers import BegunAnswers
from glm_server.openai.chat_schema import (
    CompletionTokensDetails,
    PromptTokensDetails,
    TokenLogprob,
    Usage,
)
from glm_server.openai.token_names import name_tokens
from glm_server.store import LoadedModel

DONE = "data: [DONE]\n\n"


@dataclass
class ChoiceState:
    """One answer as far as it has arrived.

    Attributes:
        text: its text.
        reasoning: its reasoning.
        calls: its calls of tools, which come with the last piece.
        logprobs: log-probabilities of its tokens, if they were requested.
        prompt_logprobs: log-probabilities of the prompt's tokens from the second one on, if they
            were requested.
        finish_reason: the reason why it ended.
        num_tokens: number of its tokens.
        num_reasoning: how many of them are reasoning.
    """

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: str = "stop"
    num_tokens: int = 0
    num_reasoning: int = 0

    def add(self, piece: Piece) -> None:
        """Take the next piece."""
        self.num_tokens += 1
        self.num_reasoning += piece.is_reasoning
        self.text += piece.text
        self.reasoning += piece.reasoning
        self.calls = piece.tool_calls
        self.prompt_logprobs = self.prompt_logprobs or piece.prompt_logprobs
        if piece.finish_reason is not None:
            self.finish_reason = read_finish(piece)


def read_finish(piece: Piece) -> str:
    """Return OpenAI's name for the reason why an answer ended."""
    return "stop" if piece.finish_reason == "stop_string" else str(piece.finish_reason)


class Job:
    """The answers to one request.

    Attributes:
        begun: the answers.
        choices: what has arrived of each answer.
        id: id of the response.
        created: Unix time at which it began.
    """

    def __init__(
        self,
        begun: BegunAnswers,
        prefix: str,
        choices_per_prompt: int,
        *,
        names_end: bool = False,
        streams_usage: bool = False,
    ) -> None:
        """Start.

        Args:
            begun: the answers.
            prefix: beginning of the response's id.
            choices_per_prompt: number of answers to each prompt.
            names_end: whether the token that ends an answer has its log-probability, too.
            streams_usage: whether the last event of a stream has the number of tokens; it is null
                in all others then, as OpenAI's.
        """
        self.begun = begun
        self.choices = [ChoiceState() for _ in begun.requests]
        self.id = f"{prefix}-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self._step = choices_per_prompt
        self._names_end = names_end
        self.streams_usage = streams_usage
        self._cached = [0] * len(begun.requests)

    @property
    def loaded(self) -> LoadedModel:
        """The model that answers."""
        return self.begun.loaded

    @property
    def usage(self) -> Usage:
        """Number of tokens so far; each prompt counts once."""
        prompt = sum(len(one.prompt_ids) for one in self.begun.requests[:: self._step])
        completion = sum(choice.num_tokens for choice in self.choices)
        reasoning = sum(choice.num_reasoning for choice in self.choices)
        cached = sum(self._cached[:: self._step])
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=reasoning),
        )

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Yield all pieces with the numbers of their answers, and keep what they add up to.

        Raises:
            ApiError: an answer failed.
        """
        async for numbered in self.begun.answers.events():
            event = numbered.event
            if isinstance(event, Started):
                self._cached[numbered.index] = event.cached_tokens
                continue
            self.choices[numbered.index].add(event)
            yield numbered.index, event

    async def collect(self) -> None:
        """Wait for the ends of all answers, and close them.

        Raises:
            ApiError: an answer failed.
        """
        try:
            async for index, piece in self.pieces():
                if (named := self.name_logprobs(piece)) is not None:
                    self.choices[index].logprobs.append(named)
        finally:
            await self.begun.answers.close()

    def name_logprobs(self, piece: Piece) -> TokenLogprob | None:
        """Return the log-probabilities of a token of the answer, if they were requested."""
        model = self.loaded.model
        is_end = not self._names_end and piece.token_id in model.manifest.model.eos_token_ids
        if piece.logprobs is None or is_end or piece.is_reasoning:
            return None
        return name_tokens(model.tokenizer, piece.token_id, piece.logprobs)

    def write(self, kind: str, content: Mapping[str, Any]) -> str:
        """Return a server-sent event of a stream."""
        head = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.loaded.name,
            "system_fingerprint": self.loaded.fingerprint,
            **({"usage": None} if self.streams_usage else {}),
        }
        return write_event({**head, **content})


def write_event(content: Mapping[str, Any]) -> str:
    """Return JSON as a server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
