"""Bodies of requests to the server, and the shape in which it refuses them."""

from typing import Any

from support.servers import Reply

RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
USER: Any = {"role": "user", "content": "?"}
# The smallest bodies that are answered.
BODIES: dict[str, dict[str, Any]] = {
    RESPONSES: {"input": "?", "max_output_tokens": 1},
    MESSAGES: {"messages": [USER], "max_tokens": 1},
    COUNT: {"messages": [USER]},
}
FUNCTION: Any = {"type": "function", "name": "get", "parameters": {"type": "object"}}
TOOL: Any = {"name": "get", "input_schema": {"type": "object"}}

# A grammar that is valid, and becomes too complex after the first tokens of the answer.
TOO_COMPLEX: Any = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "maxLength": 4},
        "c": {"anyOf": [{"type": "array", "prefixItems": [{"const": n}]} for n in range(2500)]},
    },
    "required": ["a", "c"],
    "additionalProperties": False,
}


def typed(kind: str, **fields: Any) -> Any:
    """An object with a type, as items and blocks are."""
    return {"type": kind, **fields}


def message(*content: Any) -> Any:
    """Messages with one of a user."""
    return [{"role": "user", "content": list(content)}]


def check_refusal(path: str, reply: Reply) -> str:
    """Check the status and the shape of an error; return its message."""
    assert 400 <= reply.status < 500, (reply.status, reply.body)
    if path == RESPONSES:
        error = reply.json["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
    else:
        assert reply.json["type"] == "error"
        error = reply.json["error"]
        assert error["type"] == "invalid_request_error"
    assert len(error["message"]) > 20
    return str(error["message"])
