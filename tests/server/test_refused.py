"""What clients of responses and messages can send and the server refuses, by name.

`docs/server-refused.md` has the same fields.
"""

from pathlib import Path
from typing import Any

import pytest

from support.server_bodies import (
    BODIES,
    COUNT,
    FUNCTION,
    MESSAGES,
    RESPONSES,
    TOOL,
    USER,
    check_refusal,
    message,
    typed,
)
from support.servers import ServerProcess

DOCS = Path(__file__).parents[2] / "docs" / "server-refused.md"
IMAGE = typed("image", source=typed("base64", media_type="image/png", data=""))
THOUGHT = typed("reasoning", content=[typed("reasoning_text", text="a")])
# endpoint, field of the table in the documentation, its value, and the field that is named
REFUSED: list[tuple[str, str, Any, str]] = [
    (RESPONSES, "store", True, "store"),
    (RESPONSES, "previous_response_id", "resp_1", "previous_response_id"),
    (RESPONSES, "conversation", "conv_1", "conversation"),
    (RESPONSES, "background", True, "background"),
    (RESPONSES, "background_options", {}, "background_options"),
    (RESPONSES, "prompt", {"id": "pmpt_1"}, "prompt"),
    (RESPONSES, "context_management", [], "context_management"),
    (RESPONSES, "max_tool_calls", 3, "max_tool_calls"),
    (RESPONSES, "truncation", "auto", "truncation"),
    (RESPONSES, "service_tier", "flex", "service_tier"),
    (RESPONSES, "moderation", {"model": "omni"}, "moderation"),
    (RESPONSES, "access_programs", {}, "access_programs"),
    (RESPONSES, "image", {}, "image"),
    (RESPONSES, "prompt_cache_options", {}, "prompt_cache_options"),
    (RESPONSES, "prompt_cache_retention", "24h", "prompt_cache_retention"),
    (RESPONSES, "include", ["file_search_call.results"], "include[0]"),
    (RESPONSES, "reasoning.summary", {"summary": "auto"}, "reasoning.summary"),
    (RESPONSES, "reasoning.generate_summary", {"generate_summary": "auto"}, "reasoning.generate"),
    (RESPONSES, "reasoning.context", {"context": "auto"}, "reasoning.context"),
    (RESPONSES, "reasoning.mode", {"mode": "pro"}, "reasoning.mode"),
    (RESPONSES, "text.verbosity", {"verbosity": "low"}, "text.verbosity"),
    (RESPONSES, "tools", [typed("web_search")], "tools[0]"),
    (RESPONSES, "tools", [typed("mcp", server_label="a", server_url="b")], "tools[0].server_url"),
    (RESPONSES, "tools", [typed("custom", name="a")], "tools[0]"),
    (RESPONSES, "tools", [{**FUNCTION, "defer_loading": True}], "tools[0].defer_loading"),
    (RESPONSES, "tool_choice", typed("web_search_preview"), "tool_choice"),
    (RESPONSES, "tool_choice", typed("mcp", server_label="a"), "tool_choice"),
    (RESPONSES, "input", message(typed("input_image", image_url="a")), "input[0].content[0]"),
    (RESPONSES, "input", message(typed("input_file", file_id="a")), "input[0].content[0]"),
    (RESPONSES, "input", [typed("item_reference", id="msg_1")], "input[0]"),
    (RESPONSES, "input", [typed("web_search_call", id="ws_1")], "input[0]"),
    (
        RESPONSES,
        "input",
        [typed("reasoning", id="a", summary=[], encrypted_content="a")],
        "input[0]",
    ),
    (RESPONSES, "stream_options.include_obfuscation", {"include_obfuscation": True}, "stream_opti"),
    (MESSAGES, "container", "container_1", "container"),
    (MESSAGES, "mcp_servers", [], "mcp_servers"),
    (MESSAGES, "context_management", {}, "context_management"),
    (MESSAGES, "diagnostics", {}, "diagnostics"),
    (MESSAGES, "inference_geo", "eu", "inference_geo"),
    (MESSAGES, "user_profile_id", "a", "user_profile_id"),
    (MESSAGES, "workspace_id", "a", "workspace_id"),
    (MESSAGES, "speed", "fast", "speed"),
    (MESSAGES, "max_tokens", 0, "max_tokens"),
    (MESSAGES, "temperature", 1.5, "temperature"),
    (MESSAGES, "thinking", typed("between_tools"), "thinking"),
    (MESSAGES, "thinking", typed("enabled", budget_tokens=1023), "thinking.budget_tokens"),
    (MESSAGES, "thinking", typed("adaptive", display="omitted"), "thinking.display"),
    (MESSAGES, "tools", [typed("web_search_20250305", name="web_search")], "tools[0].type"),
    (MESSAGES, "tools", [{**TOOL, "input_examples": []}], "tools[0].input_examples"),
    (MESSAGES, "tools", [{**TOOL, "defer_loading": True}], "tools[0].defer_loading"),
    (MESSAGES, "tools", [{**TOOL, "allowed_callers": ["code_execution"]}], "tools[0].allowed_call"),
    (MESSAGES, "messages", message(IMAGE), "messages[0].content[0]"),
    (MESSAGES, "messages", message(typed("document", source={})), "messages[0].content[0]"),
    (MESSAGES, "messages", message(typed("search_result", content=[])), "messages[0].content[0]"),
    (
        MESSAGES,
        "messages",
        message(typed("tool_result", tool_use_id="a", content=[IMAGE])),
        "messages[0].content[0].content[0].type",
    ),
    (
        MESSAGES,
        "messages",
        [USER, {"role": "assistant", "content": [typed("redacted_thinking", data="a")]}],
        "messages[1].content[0]",
    ),
    (MESSAGES, "system", [IMAGE], "system[0].type"),
    (COUNT, "max_tokens", 3, "max_tokens"),
]


@pytest.mark.parametrize(("path", "field", "value", "named"), REFUSED)
def test_a_field_is_refused_by_name(
    server: ServerProcess, path: str, field: str, value: Any, named: str
) -> None:
    reply = server.request(path, {**BODIES[path], field.partition(".")[0]: value})
    assert named in check_refusal(path, reply)


@pytest.mark.parametrize("path", BODIES)
def test_the_documentation_has_every_refused_field(path: str) -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith(f"| `{path}` |")]
    for _, field, *_ in (row for row in REFUSED if row[0] == path):
        assert any(f"`{field}`" in row.split("|")[2] for row in rows), (path, field)
