"""Errors as the clients of each interface expect them.

OpenAI's and Anthropic's clients raise different exceptions by status, and read message and type
from bodies of different shapes. Source: both clients' `_exceptions.py`.
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Response

from glm_runtime.errors import (
    AnswerCancelledError,
    EngineClosedError,
    GlmRuntimeError,
    GrammarError,
    PromptError,
    QueueFullError,
    SamplingError,
)

_ANTHROPIC_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_RETRY_SECONDS = 1
# What a request itself caused; everything else is a fault of the server or the machine.
_CLIENT_ERRORS = (PromptError, SamplingError, GrammarError)


class ServerError(GlmRuntimeError):
    """The server cannot start."""


class ApiError(Exception):
    """A refusal with a status.

    Attributes:
        status: HTTP status.
        message: a sentence for the user.
        code: OpenAI's short name of the cause; `None` where it has none.
        param: the field of the request that is wrong.
        retry_after: seconds after which a client may try again.
    """

    def __init__(  # all but two are optional
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with the status."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})

    def to_openai(self) -> dict[str, Any]:
        """Return the body that OpenAI's clients expect."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        inner = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": inner}

    def to_anthropic(self) -> dict[str, Any]:
        """Return the body that Anthropic's clients expect."""
        kind = _ANTHROPIC_TYPES.get(self.status, "api_error")
        if self.status < 500 and self.status not in _ANTHROPIC_TYPES:
            kind = "invalid_request_error"
        return {"type": "error", "error": {"type": kind, "message": self.message}}


def is_anthropic(path: str) -> bool:
    """Return whether a path belongs to Anthropic's interface."""
    return path == "/v1/messages" or path.startswith("/v1/messages/")


def respond(error: ApiError, path: str) -> Response:
    """Return the response to a request on a path that failed."""
    body = error.to_anthropic() if is_anthropic(path) else error.to_openai()
    # Escaped, because a message may quote half a surrogate pair of the request.
    return Response(json.dumps(body), error.status, error.headers, "application/json")


def translate(error: GlmRuntimeError) -> ApiError:
    """Return the refusal for an error of the runtime."""
    if isinstance(error, _CLIENT_ERRORS):
        return ApiError(HTTPStatus.BAD_REQUEST, str(error), code="invalid_value")
    if isinstance(error, QueueFullError):
        code = "rate_limit_exceeded"
        status = HTTPStatus.TOO_MANY_REQUESTS
        return ApiError(status, str(error), code=code, retry_after=_RETRY_SECONDS)
    if isinstance(error, EngineClosedError | AnswerCancelledError):
        return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), retry_after=_RETRY_SECONDS)
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))


def explain_validation(errors: Sequence[Any], body: object) -> ApiError:
    """Return the refusal for a body that pydantic refused, with the name of the first field.

    Args:
        errors: pydantic's errors.
        body: the body, as JSON describes it.
    """
    # A union reports the errors of all its members; the deepest is about the member meant, and so
    # is one about a value rather than about its type.
    places = [_find_steps(error, body) for error in errors]
    is_value = [not error["type"].endswith("_type") for error in errors]
    chosen = max(range(len(errors)), key=lambda one: (len(places[one]), is_value[one]))
    first, field = errors[chosen], _write_path(places[chosen])
    if first["type"] in ("extra_forbidden", "none_required"):
        message = f"{field} is not supported by this server; leave it out."
        return ApiError(HTTPStatus.BAD_REQUEST, message, code="unknown_parameter", param=field)
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", first["msg"])
        return ApiError(HTTPStatus.BAD_REQUEST, f"the body is not JSON ({reason}); correct it.")
    message = f"{field or 'the body'}: {first['msg'].removeprefix('Value error, ')}"
    return ApiError(HTTPStatus.BAD_REQUEST, message, code="invalid_value", param=field or None)


def _find_steps(error: Any, body: object) -> list[int | str]:
    """Return the names and numbers that lead to the wrong part of a body.

    pydantic also names members of unions, such as `list[TextPart]`: what the body does not have is
    no field, unless it is missing.
    """
    place = error["loc"]
    steps = place[1:] if place and place[0] in ("body", "query", "path") else place
    found: list[int | str] = []
    for number, step in enumerate(steps, 1):
        is_missing = error["type"] == "missing" and number == len(steps)
        if isinstance(step, int):
            body = body[step] if isinstance(body, list) and step < len(body) else None
        elif isinstance(body, dict) and (step in body or is_missing):
            body = body.get(step)
        else:
            continue
        found.append(step)
    return found


def _write_path(steps: Sequence[int | str]) -> str:
    """Write a place in a body as a path, such as `messages[0].content`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".")
