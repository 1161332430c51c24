"""`POST /v1/chat/completions`."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from glm_runtime.answering.settings import Piece
from glm_runtime.text.tool_calls import ToolCall, ToolCallDelta
from glm_server.answers import AnswerResponse, begin_answers, run_while_connected
from glm_server.errors import ApiError
from glm_server.openai.chat_request import read_question
from glm_server.openai.chat_schema import (
    CalledFunction,
    ChatCompletion,
    ChatCompletionRequest,
    ChatFinishReason,
    Choice,
    ChoiceLogprobs,
    ReplyMessage,
    ReplyToolCall,
    TokenLogprob,
)
from glm_server.openai.job import DONE, ChoiceState, Job, read_finish, write_event
from glm_server.services import Services, services_of

router = APIRouter()


@router.post("/v1/chat/completions", response_model=ChatCompletion)
async def create_chat_completion(body: ChatCompletionRequest, http: HttpRequest) -> Any:
    """Answer a conversation."""
    services = services_of(http)
    if not body.stream:
        return await run_while_connected(http, _answer(services, body))
    job = await _begin(services, body)
    return AnswerResponse(_stream(job, body), job.begun.answers)


async def _begin(services: Services, body: ChatCompletionRequest) -> Job:
    count = body.n or 1
    question = read_question(body)
    begun = await begin_answers(
        services, body.model, lambda loaded: question.make_requests(loaded.model, count)
    )
    return Job(begun, "chatcmpl", count, streams_usage=body.streams_usage)


async def _answer(services: Services, body: ChatCompletionRequest) -> ChatCompletion:
    job = await _begin(services, body)
    await job.collect()
    return ChatCompletion(
        id=job.id,
        created=job.created,
        model=job.loaded.name,
        system_fingerprint=job.loaded.fingerprint,
        choices=[_describe(index, choice, body) for index, choice in enumerate(job.choices)],
        usage=job.usage,
    )


def _describe(index: int, choice: ChoiceState, body: ChatCompletionRequest) -> Choice:
    calls = [describe_call(call) for call in choice.calls]
    message = ReplyMessage(
        content=choice.text if choice.text or not calls else None,
        reasoning_content=choice.reasoning or None,
        tool_calls=calls or None,
    )
    return Choice(
        index=index,
        message=message,
        logprobs=ChoiceLogprobs(content=choice.logprobs) if body.logprobs else None,
        finish_reason=cast("ChatFinishReason", choice.finish_reason),
    )


def describe_call(call: ToolCall) -> ReplyToolCall:
    """Return a call in OpenAI's format."""
    return ReplyToolCall(
        id=call.id, function=CalledFunction(name=call.name, arguments=call.arguments)
    )


async def _stream(job: Job, body: ChatCompletionRequest) -> AsyncIterator[str]:
    try:
        for index in range(len(job.choices)):
            yield _write_chunk(job, index, {"role": "assistant", "content": ""})
        async for index, piece in job.pieces():
            named = job.name_logprobs(piece)
            if (delta := _describe_piece(piece)) or named is not None:
                yield _write_chunk(job, index, delta, named)
            if piece.finish_reason is not None:
                yield _write_chunk(job, index, {}, finish_reason=read_finish(piece))
        if body.streams_usage:
            yield job.write(
                "chat.completion.chunk", {"choices": [], "usage": job.usage.model_dump()}
            )
    except ApiError as error:
        yield write_event(error.to_openai())
        return
    yield DONE


def _describe_piece(piece: Piece) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if piece.text:
        delta["content"] = piece.text
    if piece.tool_call_deltas:
        delta["tool_calls"] = [_describe_delta(one) for one in piece.tool_call_deltas]
    return delta


def _describe_delta(delta: ToolCallDelta) -> dict[str, Any]:
    if not delta.name:
        return {"index": delta.index, "function": {"arguments": delta.arguments}}
    function = {"name": delta.name, "arguments": delta.arguments}
    return {"index": delta.index, "id": delta.id, "type": "function", "function": function}


def _write_chunk(
    job: Job,
    index: int,
    delta: Mapping[str, Any],
    named: TokenLogprob | None = None,
    finish_reason: str | None = None,
) -> str:
    logprobs = None if named is None else {"content": [named.model_dump()], "refusal": None}
    choice = {
        "index": index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
    }
    return job.write("chat.completion.chunk", {"choices": [choice]})
