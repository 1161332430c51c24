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
from glm_server.openai.responses_events import Event
from glm_server.openai.responses_loop import ResponseLoop, begin_response
from glm_server.openai.responses_reply import ResponseReply
from glm_server.openai.responses_schema import ResponseRequest
from glm_server.services import Services, services_of

router = APIRouter()


@router.post("/v1/responses", response_model=ResponseReply)
async def create_response(body: ResponseRequest, http: HttpRequest) -> Any:
    """Answer a conversation; nothing is stored."""
    services = services_of(http)
    if not body.stream:
        return await run_while_connected(http, _answer(services, body))
    loop = await run_while_connected(http, begin_response(services, body))
    return AnswerResponse(_stream(loop), loop)


async def _answer(services: Services, body: ResponseRequest) -> ResponseReply:
    loop = await begin_response(services, body)
    try:
        async for _ in loop.events():
            pass
    finally:
        await loop.close()
    return loop.writer.reply


async def _stream(loop: ResponseLoop) -> AsyncIterator[str]:
    try:
        async for event in loop.events():
            yield _write_event(event)
    except ApiError as error:
        for event in loop.writer.fail(error):
            yield _write_event(event)


def _write_event(event: Event) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
