"""`POST /v1/responses` and its count of tokens, for clients that send the whole conversation.

Nothing is stored, so an answer cannot be asked for again.
"""

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from glm_server.answers import AnswerResponse, run_while_connected, use_model
from glm_server.errors import ApiError
from glm_server.openai.mcp_schema import InputApproval
from glm_server.openai.mcp_tools import choose_tools
from glm_server.openai.responses_events import Event
from glm_server.openai.responses_loop import ResponseLoop, begin_response
from glm_server.openai.responses_reply import InputTokenCount, ResponseReply
from glm_server.openai.responses_request import read_prompt
from glm_server.openai.responses_schema import ResponsePromptFields, ResponseRequest
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


@router.post("/v1/responses/input_tokens")
async def count_input_tokens(body: ResponsePromptFields, http: HttpRequest) -> InputTokenCount:
    """Return the number of tokens of the prompt that a body becomes."""
    items = [] if isinstance(body.input, str) else body.input
    if any(isinstance(item, InputApproval) for item in items):
        message = (
            "the result of an approved call is not known yet; send its request to /v1/responses."
        )
        raise ApiError(HTTPStatus.BAD_REQUEST, message, code="invalid_value", param="input")
    tools = await choose_tools(services_of(http), body)
    question = read_prompt(body, tools)
    prompt = await use_model(http, body.model, question.prepare)
    return InputTokenCount(input_tokens=len(prompt.token_ids))


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
