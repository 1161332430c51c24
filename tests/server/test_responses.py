"""Responses, as OpenAI's own client sends and reads them."""

import json
import math
from typing import Any

import openai
import pydantic
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from support.servers import ServerProcess
from support.verses import ASKED_VERSE, DESCRIPTION, LINE, PARAMETERS, POEM, REFERENCE, VERSE

PATH = "/v1/responses"
TOOL: Any = {
    "type": "function",
    "name": "get_verse",
    "description": DESCRIPTION,
    "parameters": PARAMETERS,
    "strict": True,
}
OTHER: Any = {"type": "function", "name": "get_poem", "parameters": None, "strict": False}
GREEDY: Any = {"model": "sample", "temperature": 0}


def test_a_text_is_answered(client: openai.OpenAI) -> None:
    reply = client.responses.create(**GREEDY, input=POEM, metadata={"a": "b"}, user="me")
    assert LINE in reply.output_text
    assert (reply.status, reply.error, reply.incomplete_details) == ("completed", None, None)
    assert (reply.model, reply.temperature, reply.metadata) == ("sample", 0, {"a": "b"})
    (item,) = reply.output
    assert item.type == "message"
    assert item.status == "completed"
    usage = reply.usage
    assert usage is not None
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.output_tokens_details.reasoning_tokens == 0


def test_items_are_what_chat_completions_read_as_messages(client: openai.OpenAI) -> None:
    """Instructions, messages with and without a type, parts of text, and an earlier answer."""
    items: Any = [
        {"role": "user", "content": "你好"},
        {
            "type": "message",
            "role": "assistant",
            "content": [part("output_text", "你"), part("output_text", "好")],
        },
        {"type": "message", "role": "developer", "content": [part("input_text", "简短。")]},
        {"role": "user", "content": [part("input_text", POEM[:5]), part("input_text", POEM[5:])]},
    ]
    reply = client.responses.create(**GREEDY, input=items, instructions="你是诗人。")
    messages: Any = [
        {"role": "system", "content": "你是诗人。"},
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "你好"},
        {"role": "system", "content": "简短。"},
        {"role": "user", "content": POEM},
    ]
    chat = client.chat.completions.create(**GREEDY, messages=messages)
    assert reply.output_text == chat.choices[0].message.content
    assert reply.usage is not None
    assert chat.usage is not None
    assert reply.usage.input_tokens == chat.usage.prompt_tokens


def part(kind: str, text: str) -> dict[str, Any]:
    return {"type": kind, "text": text}


def test_a_second_turn_is_read_from_the_cache(client: openai.OpenAI) -> None:
    items: Any = [{"role": "user", "content": POEM}]
    first = client.responses.create(**GREEDY, input=items)
    items += [*first.output, {"role": "user", "content": POEM}]
    second = client.responses.create(**GREEDY, input=items)
    assert first.usage is not None
    assert second.usage is not None
    cached = second.usage.input_tokens_details.cached_tokens
    assert cached >= first.usage.input_tokens + first.usage.output_tokens - 4


@pytest.mark.parametrize("is_streaming", [False, True])
def test_a_loop_with_a_tool(client: openai.OpenAI, is_streaming: bool) -> None:
    """Question, call, result, answer: what an agent does with the client's own items."""
    items: Any = [{"role": "user", "content": ASKED_VERSE}]
    if is_streaming:
        with client.responses.stream(**GREEDY, input=items, tools=[TOOL]) as stream:
            reply: Any = stream.get_final_response()
    else:
        reply = client.responses.create(**GREEDY, input=items, tools=[TOOL])
    (call,) = reply.output
    assert (call.type, call.name, call.status) == ("function_call", "get_verse", "completed")
    assert json.loads(call.arguments) == REFERENCE
    items += [*reply.output, result(call.call_id, VERSE)]
    final = client.responses.create(**GREEDY, input=items, tools=[TOOL])
    assert VERSE.rstrip(".") in final.output_text


def result(call_id: str, output: Any) -> Any:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def test_a_result_may_have_parts(client: openai.OpenAI) -> None:
    call: Any = {"type": "function_call", "call_id": "a", "name": "get_verse", "arguments": "{}"}
    asked: Any = {"role": "user", "content": ASKED_VERSE}
    parts: Any = [
        asked,
        call,
        result("a", [part("input_text", VERSE[:9]), part("input_text", VERSE[9:])]),
    ]
    whole: Any = [asked, call, result("a", VERSE)]
    replies = [client.responses.create(**GREEDY, input=one, tools=[TOOL]) for one in (parts, whole)]
    assert replies[0].output_text == replies[1].output_text
    assert replies[0].usage is not None
    assert replies[1].usage is not None
    assert replies[0].usage.input_tokens == replies[1].usage.input_tokens


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "name": "get_poem"}], ids=["any", "named"]
)
def test_a_call_is_required(client: openai.OpenAI, choice: Any) -> None:
    reply = client.responses.create(
        **GREEDY,
        input=POEM,
        tools=[TOOL, OTHER],
        tool_choice=choice,
        parallel_tool_calls=False,
        max_output_tokens=80,
    )
    (call,) = reply.output
    assert call.type == "function_call"
    assert choice == "required" or call.name == "get_poem"


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_allowed_tools_are_called(client: openai.OpenAI, mode: Any) -> None:
    tools: Any = [{"type": "function", "name": "get_poem"}]
    reply = client.responses.create(
        **GREEDY,
        input=ASKED_VERSE,
        tools=[TOOL, OTHER],
        tool_choice={"type": "allowed_tools", "mode": mode, "tools": tools},
        parallel_tool_calls=False,
        max_output_tokens=80,
    )
    assert all(item.type != "function_call" or item.name == "get_poem" for item in reply.output)
    assert mode == "auto" or reply.output[0].type == "function_call"


def test_tokens_are_counted(client: openai.OpenAI) -> None:
    asked: Any = {"input": ASKED_VERSE, "instructions": "Be short.", "tools": [TOOL, OTHER]}
    reply = client.responses.create(**GREEDY, **asked, max_output_tokens=1)
    assert reply.usage is not None
    counted = client.responses.input_tokens.count(model="sample", **asked)
    assert counted.input_tokens == reply.usage.input_tokens
    chosen: Any = {"type": "allowed_tools", "mode": "auto", "tools": [typed_name("get_poem")]}
    fewer = client.responses.input_tokens.count(model="sample", **asked, tool_choice=chosen)
    assert fewer.input_tokens < counted.input_tokens
    with pytest.raises(openai.BadRequestError, match="personality"):
        client.responses.input_tokens.count(model="sample", **asked, personality="friendly")


def typed_name(name: str) -> Any:
    return {"type": "function", "name": name}


def test_no_tool_is_called_with_none(client: openai.OpenAI) -> None:
    reply = client.responses.create(**GREEDY, input=ASKED_VERSE, tools=[TOOL], tool_choice="none")
    assert [item.type for item in reply.output] == ["message"]


def test_a_pydantic_class(client: openai.OpenAI) -> None:
    class Verse(pydantic.BaseModel):
        is_poem: bool
        lines: int = pydantic.Field(ge=0, le=9)

    reply = client.responses.parse(**GREEDY, input=POEM, text_format=Verse)
    assert isinstance(reply.output_parsed, Verse)
    with client.responses.stream(**GREEDY, input=POEM, text_format=Verse) as stream:
        assert stream.get_final_response().output_parsed == reply.output_parsed


def test_a_json_object(client: openai.OpenAI) -> None:
    reply = client.responses.create(
        **GREEDY, input=POEM, text={"format": {"type": "json_object"}}, max_output_tokens=40
    )
    assert reply.output_text.startswith("{")


def test_reasoning_comes_first_and_is_sent_back(client: openai.OpenAI) -> None:
    items: Any = [{"role": "user", "content": POEM}]
    reply = client.responses.create(
        **GREEDY,
        input=items,
        reasoning={"effort": "low"},
        include=["reasoning.encrypted_content"],
        store=False,
    )
    reasoning, message = reply.output
    assert reasoning.type == "reasoning"
    assert reasoning.content is not None
    assert "静夜思" in reasoning.content[0].text
    assert message.type == "message"
    assert LINE in reply.output_text
    assert reply.usage is not None
    assert 0 < reply.usage.output_tokens_details.reasoning_tokens < reply.usage.output_tokens
    items += [*reply.output, {"role": "user", "content": POEM}]
    again = client.responses.create(**GREEDY, input=items, reasoning={"effort": "none"})
    assert [item.type for item in again.output] == ["message"]


def test_a_limit_of_tokens(client: openai.OpenAI) -> None:
    reply = client.responses.create(**GREEDY, input=POEM, max_output_tokens=4)
    assert reply.status == "incomplete"
    assert reply.incomplete_details is not None
    assert reply.incomplete_details.reason == "max_output_tokens"
    assert reply.usage is not None
    assert reply.usage.output_tokens == 4
    assert [getattr(item, "status", None) for item in reply.output] == ["incomplete"]
    thinking = client.responses.create(
        **GREEDY, input=POEM, max_output_tokens=4, reasoning={"effort": "high"}
    )
    assert [item.type for item in thinking.output] == ["reasoning"]
    assert thinking.status == "incomplete"


def test_log_probabilities(client: openai.OpenAI) -> None:
    """Those of the answer alone, as chat completions have them."""
    reply = client.responses.create(
        **GREEDY,
        input=POEM,
        reasoning={"effort": "high"},
        top_logprobs=2,
        include=["message.output_text.logprobs"],
    )
    messages: Any = [{"role": "user", "content": POEM}]
    chat = client.chat.completions.create(
        **GREEDY, messages=messages, reasoning_effort="high", logprobs=True, top_logprobs=2
    )
    message = reply.output[-1]
    assert message.type == "message"
    (text,) = message.content
    assert text.type == "output_text"
    found, expected = text.logprobs, chat.choices[0].logprobs
    assert found
    assert expected is not None
    assert expected.content is not None
    assert [one.token for one in found] == [one.token for one in expected.content]
    for one, other in zip(found, expected.content, strict=True):
        assert math.isclose(one.logprob, other.logprob, abs_tol=1e-3)
        assert len(one.top_logprobs) == 2
    said = b"".join(bytes(one.bytes) for one in found).decode()
    assert said.strip() == text.text


def test_the_response_is_what_the_client_s_types_say(server: ServerProcess) -> None:
    body = {"input": ASKED_VERSE, "temperature": 0, "tools": [TOOL, OTHER], "tool_choice": "auto"}
    schema = {"type": "json_schema", "name": "a", "schema": {"type": "object"}}
    more = {"text": {"format": schema}, "reasoning": {"effort": "low"}, "metadata": {"a": "b"}}
    named = {"tool_choice": {"type": "function", "name": "get_verse"}, "max_output_tokens": 90}
    for given in (body, {**body, **named}, {**body, **more, "max_output_tokens": 40}):
        reply = server.request(PATH, given).json
        # The API sends `store`, too, which the client's type does not have.
        assert set(Response.model_validate(reply).model_extra or {}) == {"store"}


class TestEvents:
    def test_of_reasoning_and_text(self, server: ServerProcess) -> None:
        body = {"input": POEM, "temperature": 0, "reasoning": {"effort": "high"}, "stream": True}
        include = ["message.output_text.logprobs"]
        events = server.request(PATH, {**body, "include": include}).events
        check_numbers(events)
        assert shorten(events) == [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
        final = events[-1]["response"]
        reasoning, message = final["output"]
        assert join(events, "reasoning_text.delta") == reasoning["content"][0]["text"]
        assert join(events, "output_text.delta") == message["content"][0]["text"]
        deltas = [event for event in events if event["type"] == "response.output_text.delta"]
        assert len(deltas) > 10
        scored = [one for delta in deltas for one in delta["logprobs"]]
        assert scored == message["content"][0]["logprobs"]
        done = [one["item"] for one in events if one["type"] == "response.output_item.done"]
        assert done == final["output"]
        assert events[0]["response"]["output"] == []
        assert events[0]["response"]["usage"] is None
        assert final["usage"]["output_tokens_details"]["reasoning_tokens"] > 0

    def test_of_a_call(self, server: ServerProcess) -> None:
        body = {"input": ASKED_VERSE, "temperature": 0, "tools": [TOOL], "stream": True}
        events = server.request(PATH, body).events
        check_numbers(events)
        assert shorten(events) == [
            "created",
            "in_progress",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
        (call,) = events[-1]["response"]["output"]
        assert join(events, "function_call_arguments.delta") == call["arguments"]
        assert sum("arguments.delta" in event["type"] for event in events) > 5
        assert json.loads(call["arguments"]) == REFERENCE

    def test_of_an_answer_that_is_cut_off(self, server: ServerProcess) -> None:
        body = {"input": POEM, "temperature": 0, "max_output_tokens": 3, "stream": True}
        reply = server.request(PATH, body)
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert shorten(reply.events)[-2:] == ["output_item.done", "incomplete"]
        assert reply.events[-2]["item"]["status"] == "incomplete"
        names = [one[7:] for one in reply.body.decode().splitlines() if one.startswith("event: ")]
        assert names == [event["type"] for event in reply.events]


EVENT: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ResponseStreamEvent)


def check_numbers(events: list[Any]) -> None:
    """Check the shape of all events against the client's own types, and their order."""
    for event in events:
        EVENT.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    indices = [event["output_index"] for event in events if "output_index" in event]
    assert indices == sorted(indices)


def shorten(events: list[Any]) -> list[str]:
    """The types in order, each run of deltas as one."""
    types = [event["type"].removeprefix("response.") for event in events]
    return [
        kind
        for place, kind in enumerate(types)
        if not place or not kind.endswith("delta") or types[place - 1] != kind
    ]


def join(events: list[Any], kind: str) -> str:
    return "".join(event["delta"] for event in events if event["type"] == f"response.{kind}")
