"""The OpenAPI description of the server, as FastAPI makes it, with what FastAPI cannot know."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from glm_server.errors import is_anthropic
from glm_server.schema import Reply

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
# OpenAPI has no words for streams before 3.2; the schema is that of one event.
_EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}


class OpenAIErrorFields(Reply):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(Reply):
    """An error as OpenAI's clients expect it."""

    error: OpenAIErrorFields


class AnthropicErrorFields(Reply):
    """What went wrong."""

    type: str
    message: str


class AnthropicError(Reply):
    """An error as Anthropic's clients expect it."""

    type: str
    error: AnthropicErrorFields


def describe_app(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI description of an application; it is made once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        schemas = schema["components"]["schemas"]
        for model in (OpenAIError, AnthropicError):
            content = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= content.pop("$defs") | {model.__name__: content}
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schema["components"]["securitySchemes"] = _SECURITY
        schema["security"] = [{}, *({name: []} for name in _SECURITY)]
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                _complete(path, operation, schemas)
        app.openapi_schema = schema
    return app.openapi_schema


def _complete(path: str, operation: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    """Describe the errors of an operation, and its stream if it has one."""
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own error, which `app.py` replaces
    error = "AnthropicError" if is_anthropic(path) else "OpenAIError"
    content = {"schema": {"$ref": f"#/components/schemas/{error}"}}
    responses["default"] = {
        "description": "The request is refused, or the server failed.",
        "content": {"application/json": content},
    }
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
    if "stream" in schemas.get(name, {}).get("properties", {}):
        responses["200"]["content"]["text/event-stream"] = {"schema": _EVENT}
