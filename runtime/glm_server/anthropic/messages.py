"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Response
from fastapi import Request as HttpRequest

from glm_runtime.answering.events import Started
from glm_server.answers import AnswerResponse, run_while_connected, use_model
from glm_server.anthropic.events import Event, MessageWriter
from glm_server.anthropic.reply import MessageReply, TokenCountReply
from glm_server.anthropic.request import read_prompt, read_question
from glm_server.anthropic.schema import CountRequest, MessageRequest
from glm_server.errors import ApiError
from glm_server.services import Services, services_of
from glm_server.turns import Turn, begin_turn

router = APIRouter()
_PING = 'event: ping\ndata: {"type": "ping"}\n\n'


@router.post("/v1/messages", response_model=MessageReply)
async def create_message(body: MessageRequest, http: HttpRequest) -> Any:
    """Answer a conversation."""
    services = services_of(http)
    if not body.stream:
        return await run_while_connected(http, _answer(services, body))
    turn = await _begin(services, body)
    content = _stream(turn, MessageWriter(turn, body.max_tokens))
    return AnswerResponse(content, turn.begun.answers, silence=_PING)


@router.post("/v1/messages/count_tokens")
async def count_tokens(body: CountRequest, http: HttpRequest) -> TokenCountReply:
    """Return the number of tokens of the prompt that a body becomes."""
    prompt = await use_model(http, body.model, lambda one: read_prompt(body).prepare(one))
    return TokenCountReply(input_tokens=len(prompt.token_ids))


async def _begin(services: Services, body: MessageRequest) -> Turn:
    return await begin_turn(services, body.model, read_question(body))


async def _answer(services: Services, body: MessageRequest) -> Response:
    turn = await _begin(services, body)
    try:
        async for _ in turn.events():
            pass
    finally:
        await turn.close()
    described = MessageWriter(turn, body.max_tokens).describe()
    # The input of a call may hold half a surrogate pair, which JSON writes with a backslash.
    text = json.dumps(described, ensure_ascii=False)
    return Response(text.encode("utf-8", "backslashreplace"), media_type="application/json")


async def _stream(turn: Turn, writer: MessageWriter) -> AsyncIterator[str]:
    try:
        async for event in turn.events():
            # The first event knows how much of the prompt was cached, which message_start says.
            changes = writer.begin() if isinstance(event, Started) else writer.add(event)
            for change in changes:
                yield _write_event(change)
        for change in writer.finish():
            yield _write_event(change)
    except ApiError as error:
        yield _write_event(error.to_anthropic())


def _write_event(event: Event) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
