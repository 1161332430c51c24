"""Anthropic's messages, as its own client sends and reads them."""

from typing import Any

import anthropic
import pydantic
import pytest
from anthropic.types import Message, RawMessageStreamEvent

from support.servers import ServerProcess
from support.verses import ASKED_VERSE, DESCRIPTION, LINE, PARAMETERS, POEM, REFERENCE, VERSE

PATH = "/v1/messages"
ASKED: Any = [{"role": "user", "content": POEM}]
VERSE_ASKED: Any = [{"role": "user", "content": ASKED_VERSE}]
TOOL: Any = {"name": "get_verse", "description": DESCRIPTION, "input_schema": PARAMETERS}
OTHER: Any = {"name": "get_poem", "input_schema": {"type": "object", "properties": {}}}
GREEDY: Any = {"model": "sample", "max_tokens": 200, "extra_body": {"temperature": 0}}
LONG_TEXT = {"type": "string", "minLength": 100_000}
MARK = {"type": "ephemeral"}


@pytest.fixture(scope="module")
def anthropic_client(server: ServerProcess) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_question_is_answered(anthropic_client: anthropic.Anthropic) -> None:
    message = anthropic_client.messages.create(**GREEDY, messages=ASKED)
    assert LINE in text_of(message)
    assert (message.role, message.model, message.stop_reason) == ("assistant", "sample", "end_turn")
    assert message.stop_sequence is None
    usage = message.usage
    counted = anthropic_client.messages.count_tokens(model="sample", messages=ASKED).input_tokens
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted
    assert usage.output_tokens > 10


def test_the_stream_helper_of_the_client_reads_it(anthropic_client: anthropic.Anthropic) -> None:
    whole = anthropic_client.messages.create(**GREEDY, messages=ASKED)
    with anthropic_client.messages.stream(**GREEDY, messages=ASKED) as stream:
        parts = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(parts) == text_of(whole) == text_of(final)
    assert len(parts) > 10
    assert (final.stop_reason, final.usage.output_tokens) == (
        whole.stop_reason,
        whole.usage.output_tokens,
    )


def test_blocks_marks_and_consecutive_messages(anthropic_client: anthropic.Anthropic) -> None:
    """They read as one message of lines, and marks of the cache change nothing."""
    plain: Any = [{"role": "user", "content": f"你好\n{POEM}"}]
    split: Any = [
        {"role": "user", "content": [{"type": "text", "text": "你好", "cache_control": MARK}]},
        {"role": "user", "content": POEM},
    ]
    system: Any = [
        {"type": "text", "text": "你是诗人。", "cache_control": {**MARK, "ttl": "1h"}},
        {"type": "text", "text": "简短。"},
    ]
    one = anthropic_client.messages.create(**GREEDY, messages=plain, system="你是诗人。\n简短。")
    other = anthropic_client.messages.create(
        **GREEDY, messages=split, system=system, metadata={"user_id": "me"}
    )
    assert text_of(one) == text_of(other)
    assert sum_of(one.usage) == sum_of(other.usage)


def sum_of(usage: Any) -> int:
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


def test_a_second_turn_is_read_from_the_cache(anthropic_client: anthropic.Anthropic) -> None:
    first = anthropic_client.messages.create(**GREEDY, messages=ASKED)
    messages: Any = [*ASKED, {"role": "assistant", "content": first.content}, *ASKED]
    second = anthropic_client.messages.create(**GREEDY, messages=messages)
    read = sum_of(first.usage) + first.usage.output_tokens
    assert (second.usage.cache_read_input_tokens or 0) >= read - 4
    assert second.usage.input_tokens < read


@pytest.mark.parametrize("is_streaming", [False, True])
@pytest.mark.parametrize("is_text", [False, True])
def test_a_loop_with_a_tool(
    anthropic_client: anthropic.Anthropic, is_streaming: bool, is_text: bool
) -> None:
    """Question, call, result, answer: what an agent does with the client's own blocks."""
    if is_streaming:
        with anthropic_client.messages.stream(
            **GREEDY, messages=VERSE_ASKED, tools=[TOOL]
        ) as stream:
            message: Any = stream.get_final_message()
    else:
        message = anthropic_client.messages.create(**GREEDY, messages=VERSE_ASKED, tools=[TOOL])
    assert message.stop_reason == "tool_use"
    (call,) = message.content
    assert (call.type, call.name, call.input) == ("tool_use", "get_verse", REFERENCE)
    said: Any = VERSE if is_text else [{"type": "text", "text": VERSE}]
    messages: Any = [
        *VERSE_ASKED,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result(call.id, said)]},
    ]
    final = anthropic_client.messages.create(**GREEDY, messages=messages, tools=[TOOL])
    assert VERSE.rstrip(".") in text_of(final)


def result(id_: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id_, "content": content, **fields}


def test_a_failure_is_told_to_the_model(anthropic_client: anthropic.Anthropic) -> None:
    call = {"type": "tool_use", "id": "a", "name": "get_verse", "input": REFERENCE}
    messages: Any = [*VERSE_ASKED, {"role": "assistant", "content": [call]}]
    failed: Any = [*messages, {"role": "user", "content": [result("a", "none", is_error=True)]}]
    told: Any = [*messages, {"role": "user", "content": [result("a", "Error: none")]}]
    counts = [
        anthropic_client.messages.count_tokens(model="sample", messages=one, tools=[TOOL])
        for one in (failed, told)
    ]
    assert counts[0].input_tokens == counts[1].input_tokens


def test_results_may_come_in_any_order_before_the_text(
    anthropic_client: anthropic.Anthropic,
) -> None:
    calls = [{"type": "tool_use", "id": id_, "name": "get_verse", "input": {}} for id_ in "ab"]
    results = [result("b", "Bee"), result("a", "Ay")]
    last = {"role": "user", "content": [*results, {"type": "text", "text": "?"}]}
    messages: Any = [*ASKED, {"role": "assistant", "content": calls}, last]
    message = anthropic_client.messages.create(**GREEDY, messages=messages, tools=[TOOL])
    assert message.stop_reason is not None


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_poem"}])
def test_a_call_is_required(anthropic_client: anthropic.Anthropic, choice: Any) -> None:
    message = anthropic_client.messages.create(
        **GREEDY,
        messages=ASKED,
        tools=[TOOL, OTHER],
        tool_choice={**choice, "disable_parallel_tool_use": True},
    )
    (call,) = message.content
    assert call.type == "tool_use"
    assert choice["type"] == "any" or call.name == "get_poem"
    assert message.stop_reason == "tool_use"


def test_no_tool_is_called_with_none(anthropic_client: anthropic.Anthropic) -> None:
    message = anthropic_client.messages.create(
        **GREEDY, messages=VERSE_ASKED, tools=[TOOL], tool_choice={"type": "none"}
    )
    assert [block.type for block in message.content] == ["text"]


def test_a_stop_sequence_is_named(anthropic_client: anthropic.Anthropic) -> None:
    message = anthropic_client.messages.create(
        **GREEDY, messages=ASKED, stop_sequences=["not there", "明月"]
    )
    assert text_of(message).endswith("床前")
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "明月")


def test_a_limit_of_tokens(anthropic_client: anthropic.Anthropic) -> None:
    message = anthropic_client.messages.create(**{**GREEDY, "max_tokens": 4}, messages=ASKED)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 4)


def test_a_full_context(anthropic_client: anthropic.Anthropic) -> None:
    """A schema that only long texts match keeps the model writing until there is no room."""
    message = anthropic_client.messages.create(
        model="sample",
        max_tokens=20_000,
        messages=ASKED,
        output_config={"format": {"type": "json_schema", "schema": LONG_TEXT}},
    )
    assert message.stop_reason == "model_context_window_exceeded"


def test_an_answer_is_continued(anthropic_client: anthropic.Anthropic) -> None:
    begun: Any = [*ASKED, {"role": "assistant", "content": "《静夜思》\n床前明月"}]
    message = anthropic_client.messages.create(**GREEDY, messages=begun)
    assert text_of(message).startswith("光")


def test_thinking_is_sent_and_sent_back(anthropic_client: anthropic.Anthropic) -> None:
    given: Any = {**GREEDY, "max_tokens": 1100}
    message = anthropic_client.messages.create(
        **given, messages=ASKED, thinking={"type": "enabled", "budget_tokens": 1024}
    )
    thinking, text = message.content
    assert thinking.type == "thinking"
    assert "静夜思" in thinking.thinking
    assert thinking.signature
    assert text.type == "text"
    details = message.usage.output_tokens_details
    assert details is not None
    assert 0 < details.thinking_tokens < message.usage.output_tokens
    messages: Any = [*ASKED, {"role": "assistant", "content": message.content}, *ASKED]
    again = anthropic_client.messages.create(
        **GREEDY, messages=messages, thinking={"type": "disabled"}
    )
    assert [block.type for block in again.content] == ["text"]


def test_a_pydantic_class(anthropic_client: anthropic.Anthropic) -> None:
    class Verse(pydantic.BaseModel):
        is_poem: bool

    message = anthropic_client.messages.parse(**GREEDY, messages=ASKED, output_format=Verse)
    assert isinstance(message.parsed_output, Verse)


def test_tokens_are_counted_with_tools_and_system(anthropic_client: anthropic.Anthropic) -> None:
    def count(**fields: Any) -> int:
        return anthropic_client.messages.count_tokens(
            model="sample", messages=ASKED, **fields
        ).input_tokens

    assert count() < count(system="简短。") < count(system="简短。", tools=[TOOL])
    assert count(tools=[TOOL], tool_choice={"type": "none"}) == count()
    assert count(thinking={"type": "enabled", "budget_tokens": 1024}) > count()


class TestEvents:
    def test_of_thinking_and_text(self, server: ServerProcess) -> None:
        thinking = {"type": "enabled", "budget_tokens": 1024}
        body = {"messages": ASKED, "max_tokens": 1100, "temperature": 0, "thinking": thinking}
        reply = server.request(PATH, {**body, "stream": True})
        check_types(reply.events)
        assert shorten(reply.events) == [
            "message_start",
            "ping",
            "content_block_start 0 thinking",
            "content_block_delta 0 thinking_delta",
            "content_block_delta 0 signature_delta",
            "content_block_stop 0",
            "content_block_start 1 text",
            "content_block_delta 1 text_delta",
            "content_block_stop 1",
            "message_delta",
            "message_stop",
        ]
        whole = server.request(PATH, body).json
        assert not Message.model_validate(whole).model_extra
        assert join(reply.events, "text") == whole["content"][1]["text"]
        assert join(reply.events, "thinking") == whole["content"][0]["thinking"]
        delta = reply.events[-2]
        assert delta["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
        assert delta["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
        start = reply.events[0]["message"]
        assert (start["content"], start["stop_reason"]) == ([], None)
        assert sum(start["usage"][name] for name in INPUT) == sum(whole["usage"][n] for n in INPUT)
        names = [one[7:] for one in reply.body.decode().splitlines() if one.startswith("event: ")]
        assert names == [event["type"] for event in reply.events]

    def test_of_a_call(self, server: ServerProcess) -> None:
        body = {"messages": VERSE_ASKED, "max_tokens": 80, "temperature": 0, "tools": [TOOL]}
        events = server.request(PATH, {**body, "stream": True}).events
        check_types(events)
        assert shorten(events) == [
            "message_start",
            "ping",
            "content_block_start 0 tool_use",
            "content_block_delta 0 input_json_delta",
            "content_block_stop 0",
            "message_delta",
            "message_stop",
        ]
        assert events[2]["content_block"]["input"] == {}
        assert join(events, "partial_json") == '{"reference": "Micah 6:8"}'
        assert events[-2]["delta"]["stop_reason"] == "tool_use"


INPUT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


EVENT: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(RawMessageStreamEvent)


def check_types(events: list[Any]) -> None:
    """Check the shape of all events against the client's own types, which have no ping."""
    for event in events:
        if event["type"] != "ping":
            EVENT.validate_python(event)


def shorten(events: list[Any]) -> list[str]:
    """The events in order, each run of deltas as one."""
    shown: list[str] = []
    for event in events:
        inner = event.get("content_block", event.get("delta", {})).get("type", "")
        text = f"{event['type']} {event.get('index', '')} {inner}".strip()
        if not shown or shown[-1] != text:
            shown.append(text)
    return shown


def join(events: list[Any], name: str) -> str:
    return "".join(
        event["delta"].get(name, "") for event in events if "index" in event and "delta" in event
    )
