"""The OpenAPI description is complete: whatever it allows gets an answer that it describes."""

import sys
from pathlib import Path

import pytest

from support.commands import finish, start
from support.servers import ServerProcess

# What each answer is checked for; `negative_data_rejection` would also doubt fields that pydantic
# checks by rules beyond JSON Schema.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance"
)


@pytest.mark.parametrize(
    "phases", ["fuzzing", pytest.param("coverage", marks=pytest.mark.exhaustive)]
)
def test_every_answer_is_described(server: ServerProcess, phases: str) -> None:
    """schemathesis sends valid and invalid requests; none gives a 500 or an unknown shape."""
    program = Path(sys.executable).with_name("schemathesis")
    options = ("--max-examples", "15", "--checks", CHECKS, "--phases", phases)
    fixed = ("--seed", "1", "--generation-deterministic", "--no-color", "--request-timeout", "300")
    command = [str(program), "run", f"{server.url}/openapi.json", *options, *fixed]
    code, out, err = finish(start(command))
    assert code == 0, out + err


def test_errors_and_streams_are_described(server: ServerProcess) -> None:
    described = server.request("/openapi.json").json
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            assert "default" in operation["responses"], path
            assert "422" not in operation["responses"], path
    chat = described["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert chat.keys() == {"application/json", "text/event-stream"}
    tokens = described["paths"]["/tokenize"]["post"]["responses"]["200"]["content"]
    assert tokens.keys() == {"application/json"}
