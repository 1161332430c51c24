"""`POST /v1/chat/completions`."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, cast

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from glm_runtime.answering.engine import Started
from glm_runtime.answering.settings import Piece
from glm_runtime.errors import GlmRuntimeError
from glm_runtime.text.tool_calls import ToolCall
from glm_server.answers import AnswerResponse, Answers, run_while_connected
from glm_server.errors import ApiError, translate
from glm_server.openai.chat_request import make_requests
from glm_server.openai.chat_schema import (
    CalledFunction,
    ChatCompletion,
    ChatCompletionRequest,
    ChatFinishReason,
    Choice,
    ChoiceLogprobs,
    CompletionTokensDetails,
    PromptTokensDetails,
    ReplyMessage,
    ReplyToolCall,
    TokenLogprob,
    Usage,
)
from glm_server.openai.token_names import name_tokens
from glm_server.services import Services, services_of
from glm_server.store import LoadedModel

router = APIRouter()
_DONE = "data: [DONE]\n\n"


@dataclass
class _Choice:
    """One answer as far as it has arrived."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: ChatFinishReason = "stop"
    num_tokens: int = 0
    num_reasoning: int = 0

    def add(self, piece: Piece) -> None:
        self.num_tokens += 1
        if piece.reasoning:
            self.num_reasoning = self.num_tokens
        self.text += piece.text
        self.reasoning += piece.reasoning
        self.calls = piece.tool_calls
        if piece.finish_reason is not None:
            self.finish_reason = read_finish(piece)


@dataclass
class _Job:
    """A chat completion in progress."""

    body: ChatCompletionRequest
    loaded: LoadedModel
    answers: Answers
    prompt_tokens: int = 0
    cached_tokens: int = 0
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    choices: list[_Choice] = field(default_factory=list)

    @property
    def usage(self) -> Usage:
        completion = sum(choice.num_tokens for choice in self.choices)
        reasoning = sum(choice.num_reasoning for choice in self.choices)
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=completion,
            total_tokens=self.prompt_tokens + completion,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self.cached_tokens),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=reasoning),
        )

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Yield all pieces with the numbers of their choices, and keep what they add up to."""
        async for numbered in self.answers.events():
            event = numbered.event
            if isinstance(event, Started):
                if not numbered.index:
                    self.cached_tokens = event.cached_tokens
                continue
            self.choices[numbered.index].add(event)
            yield numbered.index, event

    def name_logprobs(self, piece: Piece) -> TokenLogprob | None:
        """Return the log-probabilities of a token of the answer."""
        model = self.loaded.model
        is_end = piece.token_id in model.manifest.model.eos_token_ids
        if piece.logprobs is None or is_end or piece.reasoning:
            return None
        return name_tokens(model.tokenizer, piece.token_id, piece.logprobs)


@router.post("/v1/chat/completions", response_model=ChatCompletion)
async def create_chat_completion(body: ChatCompletionRequest, http: HttpRequest) -> Any:
    """Answer a conversation."""
    services = services_of(http)
    if not body.stream:
        return await run_while_connected(http, _answer(services, body))
    job = await _begin(services, body)
    return AnswerResponse(_stream(job), job.answers)


async def _begin(services: Services, body: ChatCompletionRequest) -> _Job:
    stack = AsyncExitStack()
    answers = Answers(stack, services.metrics)
    try:
        loaded = await stack.enter_async_context(services.store.lend(body.model))
        requests = await asyncio.to_thread(make_requests, loaded.model, body)
        await answers.submit(loaded.engine, requests)
    except GlmRuntimeError as error:
        await answers.close()
        raise translate(error) from error
    except BaseException:
        await answers.close()
        raise
    job = _Job(body, loaded, answers, len(requests[0].prompt_ids))
    job.choices.extend(_Choice() for _ in requests)
    return job


async def _answer(services: Services, body: ChatCompletionRequest) -> ChatCompletion:
    job = await _begin(services, body)
    try:
        async for index, piece in job.pieces():
            if (named := job.name_logprobs(piece)) is not None:
                job.choices[index].logprobs.append(named)
    finally:
        await job.answers.close()
    return ChatCompletion(
        id=job.id,
        created=job.created,
        model=job.loaded.name,
        system_fingerprint=job.loaded.fingerprint,
        choices=[_describe(job, index, choice) for index, choice in enumerate(job.choices)],
        usage=job.usage,
    )


def _describe(job: _Job, index: int, choice: _Choice) -> Choice:
    calls = [describe_call(call) for call in choice.calls]
    message = ReplyMessage(
        content=choice.text if choice.text or not calls else None,
        reasoning_content=choice.reasoning or None,
        tool_calls=calls or None,
    )
    logprobs = ChoiceLogprobs(content=choice.logprobs) if job.body.logprobs else None
    return Choice(
        index=index, message=message, logprobs=logprobs, finish_reason=choice.finish_reason
    )


def describe_call(call: ToolCall) -> ReplyToolCall:
    """Return a call in OpenAI's format."""
    return ReplyToolCall(
        id=call.id, function=CalledFunction(name=call.name, arguments=call.arguments)
    )


def read_finish(piece: Piece) -> ChatFinishReason:
    """Return OpenAI's name for the reason why an answer ended."""
    reason = "stop" if piece.finish_reason == "stop_string" else piece.finish_reason
    return cast("ChatFinishReason", reason)


async def _stream(job: _Job) -> AsyncIterator[str]:
    try:
        for index in range(len(job.choices)):
            yield _write_chunk(job, index, {"role": "assistant", "content": ""})
        async for index, piece in job.pieces():
            named = job.name_logprobs(piece)
            if (delta := _describe_piece(piece)) or named is not None:
                yield _write_chunk(job, index, delta, named)
            if piece.finish_reason is not None:
                yield _write_chunk(job, index, {}, finish_reason=read_finish(piece))
        options = job.body.stream_options
        if options is not None and options.include_usage:
            yield _write(job, {"choices": [], "usage": job.usage.model_dump()})
    except ApiError as error:
        yield f"data: {json.dumps(error.to_openai(), ensure_ascii=False)}\n\n"
        return
    yield _DONE


def _describe_piece(piece: Piece) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if piece.text:
        delta["content"] = piece.text
    if piece.tool_calls:
        delta["tool_calls"] = [
            {"index": index, **describe_call(call).model_dump()}
            for index, call in enumerate(piece.tool_calls)
        ]
    return delta


def _write_chunk(
    job: _Job,
    index: int,
    delta: Mapping[str, Any],
    named: TokenLogprob | None = None,
    finish_reason: ChatFinishReason | None = None,
) -> str:
    logprobs = None if named is None else {"content": [named.model_dump()], "refusal": None}
    choice = {
        "index": index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
    }
    return _write(job, {"choices": [choice]})


def _write(job: _Job, content: Mapping[str, Any]) -> str:
    head = {
        "id": job.id,
        "object": "chat.completion.chunk",
        "created": job.created,
        "model": job.loaded.name,
        "system_fingerprint": job.loaded.fingerprint,
    }
    return f"data: {json.dumps({**head, **content}, ensure_ascii=False)}\n\n"
