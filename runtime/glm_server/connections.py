"""ASGI middleware about single requests: a log line, counters, and bodies that never come."""

import asyncio
import logging
import time
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm_runtime.errors import to_printable
from glm_server.errors import ApiError, respond
from glm_server.ids import make_id
from glm_server.metrics import Metrics
from glm_server.settings import MAX_BODY_BYTES

_LOG = logging.getLogger(__name__)
_BODY_SECONDS = 30.0
ID_HEADERS = ("x-request-id", "request-id")
_CLIENT_GONE = 499
_TOO_LONG = f"the body is larger than {MAX_BODY_BYTES} bytes; shorten it."


class RequestCounter:
    """Counts finished requests by path and status, and logs a line for each with its id.

    OpenAI's clients read the id from `x-request-id`, Anthropic's from `request-id`.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it at its end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begin, name = _CLIENT_GONE, time.monotonic(), make_id("req")

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for header in ID_HEADERS:
                    headers[header] = name
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            path = getattr(scope.get("route"), "path", "other")  # never what a client wrote
            self._metrics.requests.labels(path, str(status)).inc()
            seconds = time.monotonic() - begin
            shown = to_printable(scope["path"])[:80]
            _LOG.info("%s %s %s %.2f s %s", scope["method"], shown, status, seconds, name)


class SlowBodyCheck:
    """Refuses a request whose body does not arrive in time, or is too long.

    FastAPI's own limit of the length answers in plain text.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; waiting for its body is limited."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if int(Headers(scope=scope).get("content-length", "0")) > MAX_BODY_BYTES:
            error = ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LONG)
            await respond(error, scope["path"])(scope, receive, send)
            return
        deadline = time.monotonic() + _BODY_SECONDS
        is_whole, size = False, 0

        async def take() -> Message:
            nonlocal is_whole, size
            if is_whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except TimeoutError as error:
                detail = f"the body did not arrive within {_BODY_SECONDS:g} s; send it again."
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, detail) from error
            size += len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LONG)
            is_whole = not message.get("more_body", False)
            return message

        await self._app(scope, take, send)
