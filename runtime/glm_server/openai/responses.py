"""`POST /v1/responses`, for clients that send the whole conversation each time.

Nothing is stored, so an answer cannot be asked for again.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from glm_server.answers import AnswerResponse, run_while_connected
from glm_server.errors import ApiError
from glm_server.openai.responses_events import Event, ResponseWriter, start_reply
from glm_server.openai.responses_reply import ResponseReply
from glm_server.openai.responses_request import read_question
from glm_server.openai.responses_schema import ResponseRequest
from glm_server.sections import Change
from glm_server.services import Services, services_of
from glm_server.turns import Turn, begin_turn

router = APIRouter()


@router.post("/v1/responses", response_model=ResponseReply)
async def create_response(body: ResponseRequest, http: HttpRequest) -> Any:
    """Answer a conversation; nothing is stored."""
    services = services_of(http)
    if not body.stream:
        return await run_while_connected(http, _answer(services, body))
    turn = await _begin(services, body)
    return AnswerResponse(_stream(turn, _make_writer(turn, body)), turn.begun.answers)


async def _begin(services: Services, body: ResponseRequest) -> Turn:
    return await begin_turn(services, body.model, read_question(body))


def _make_writer(turn: Turn, body: ResponseRequest) -> ResponseWriter:
    return ResponseWriter(start_reply(body, turn.loaded.name), turn.loaded.model.tokenizer)


async def _answer(services: Services, body: ResponseRequest) -> ResponseReply:
    turn = await _begin(services, body)
    writer = _make_writer(turn, body)
    try:
        async for _ in _run(turn, writer):
            pass
    finally:
        await turn.close()
    return writer.reply


async def _stream(turn: Turn, writer: ResponseWriter) -> AsyncIterator[str]:
    try:
        async for event in _run(turn, writer):
            yield _write_event(event)
    except ApiError as error:
        for event in writer.fail(error):
            yield _write_event(event)


async def _run(turn: Turn, writer: ResponseWriter) -> AsyncIterator[Event]:
    """Yield the events of an answer.

    There is one turn, since clients run the tools. A writer takes the sections of any number of
    turns before `finish`.

    Raises:
        ApiError: the answer failed.
    """
    for event in writer.begin():
        yield event
    async for change in turn.events():
        if isinstance(change, Change):
            is_cut = turn.reader.finish_reason == "length"
            for event in writer.add(change, is_cut=is_cut):
                yield event
    for event in writer.finish(turn):
        yield event


def _write_event(event: Event) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
