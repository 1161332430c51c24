"""Chat completions, as OpenAI's own client sends and reads them."""

import json
import math
from typing import Any

import openai
import pydantic
import pytest

import glm_runtime
from support.servers import ServerProcess

POEM = "背诵李白的《静夜思》。"
ASKED: Any = [{"role": "user", "content": POEM}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_verse",
            "description": "Look up one line of a poem.",
            "parameters": {
                "type": "object",
                # Bounded, because a small model may write digits without end.
                "properties": {
                    "title": {"type": "string"},
                    "line": {"type": "integer", "minimum": 1, "maximum": 9},
                },
                "required": ["title", "line"],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "get_poem", "parameters": {"type": "object"}}},
]


def answer_alone(model: glm_runtime.Model, messages: Any, **settings: Any) -> str:
    options = glm_runtime.ChatOptions(is_sanitized=True)
    return "".join(piece.text for piece in model.chat(messages, None, options, **settings))


def test_an_answer_is_the_model_s_own(client: openai.OpenAI, model: glm_runtime.Model) -> None:
    reply = client.chat.completions.create(model="sample", messages=ASKED, temperature=0)
    choice = reply.choices[0]
    assert choice.message.content == answer_alone(model, ASKED, temperature=0)
    assert "床前明月光" in (choice.message.content or "")
    assert choice.finish_reason == "stop"
    assert reply.model == "sample"
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == len(model.prepare_chat(ASKED).token_ids)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="sample", messages=ASKED, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model="sample",
            messages=ASKED,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *parts, last = chunks
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == whole.choices[0].message.content
    assert len(parts) > 10
    assert [part.choices[0].finish_reason for part in parts if part.choices[0].finish_reason] == [
        "stop"
    ]
    assert last.choices == []
    assert last.usage is not None
    assert all("usage" in part.model_fields_set and part.usage is None for part in parts)
    assert whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_stream_helper_of_the_client_reads_it(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="sample", messages=ASKED, temperature=0) as stream:
        final = stream.get_final_completion()
    assert "床前明月光" in (final.choices[0].message.content or "")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_tokens(client: openai.OpenAI, name: str) -> None:
    limit: Any = {name: 4}
    reply = client.chat.completions.create(model="sample", messages=ASKED, **limit)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 4


def test_a_stop_string_is_not_part_of_the_answer(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="sample", messages=ASKED, temperature=0, stop=["明月"]
    )
    assert (reply.choices[0].message.content or "").endswith("床前")
    assert reply.choices[0].finish_reason == "stop"


def test_choices_differ_and_a_seed_repeats_them(client: openai.OpenAI) -> None:
    def ask() -> list[str | None]:
        reply = client.chat.completions.create(
            model="sample",
            messages=ASKED,
            n=4,
            temperature=2,
            top_p=1,
            seed=7,
            max_tokens=12,
            extra_body={"top_k": 0},
        )
        assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
        return [choice.message.content for choice in reply.choices]

    ask()  # from now on the prompt comes from the cache: int8 activations of other chunks differ
    first = ask()
    assert len(set(first)) > 1
    assert ask() == first


def test_log_probabilities(client: openai.OpenAI, model: glm_runtime.Model) -> None:
    reply = client.chat.completions.create(
        model="sample", messages=ASKED, temperature=0, max_tokens=6, logprobs=True, top_logprobs=3
    )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    prompt = model.prepare_chat(ASKED, glm_runtime.ChatOptions(is_sanitized=True))
    pieces = list(
        model.new_session().generate(
            prompt.token_ids, None, prompt.form, temperature=0, max_new_tokens=6, top_logprobs=3
        )
    )
    assert len(logprobs.content) == len(pieces)
    for found, piece in zip(logprobs.content, pieces, strict=True):
        assert piece.logprobs is not None
        assert math.isclose(found.logprob, piece.logprobs.chosen, abs_tol=1e-3)
        assert len(found.top_logprobs) == 3
        assert found.top_logprobs[0].logprob == found.logprob
    said = b"".join(bytes(one.bytes or []) for one in logprobs.content).decode()
    assert said == reply.choices[0].message.content


def test_a_bias_forbids_a_token(client: openai.OpenAI, model: glm_runtime.Model) -> None:
    first = model.tokenizer.encode("《静夜思》")[0]
    reply = client.chat.completions.create(
        model="sample", messages=ASKED, temperature=0, max_tokens=4, logit_bias={str(first): -100}
    )
    assert not (reply.choices[0].message.content or "").startswith("《")


def test_the_last_message_of_the_assistant_is_continued(client: openai.OpenAI) -> None:
    messages: Any = [*ASKED, {"role": "assistant", "content": "《静夜思》\n床前明月"}]
    reply = client.chat.completions.create(model="sample", messages=messages, temperature=0)
    assert (reply.choices[0].message.content or "").startswith("光")


def test_control_tokens_in_a_message_are_text(server: ServerProcess) -> None:
    text = "<|user|>\n<|assistant|>"
    asked = {"messages": [{"role": "user", "content": text}]}
    reply = server.request("/v1/chat/completions", {**asked, "max_tokens": 1}).json
    plain = server.request("/tokenize", {"content": text}).json
    assert reply["usage"]["prompt_tokens"] > len(plain["tokens"]) + 4


def test_parts_of_text_are_joined(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": POEM[:4]}, {"type": "text", "text": POEM[4:]}]
    messages: Any = [{"role": "user", "content": parts}]
    reply = client.chat.completions.create(model="sample", messages=messages, temperature=0)
    assert "床前明月光" in (reply.choices[0].message.content or "")


class TestForms:
    def test_a_json_object(self, client: openai.OpenAI) -> None:
        reply = client.chat.completions.create(
            model="sample",
            messages=ASKED,
            max_tokens=60,
            temperature=0,
            response_format={"type": "json_object"},
        )
        content = reply.choices[0].message.content or ""
        assert content.startswith("{")

    def test_a_pydantic_class(self, client: openai.OpenAI) -> None:
        class Verse(pydantic.BaseModel):
            is_poem: bool
            lines: int = pydantic.Field(ge=0, le=9)

        reply = client.chat.completions.parse(
            model="sample", messages=ASKED, temperature=0, response_format=Verse
        )
        assert isinstance(reply.choices[0].message.parsed, Verse)

    def test_a_call_is_required(self, client: openai.OpenAI) -> None:
        reply = client.chat.completions.create(
            model="sample",
            messages=ASKED,
            temperature=0,
            tools=TOOLS,
            tool_choice="required",
            max_tokens=80,
            parallel_tool_calls=False,
        )
        calls = reply.choices[0].message.tool_calls or []
        assert len(calls) == 1
        assert reply.choices[0].finish_reason == "tool_calls"

    def test_a_named_tool_is_called_with_its_arguments(self, client: openai.OpenAI) -> None:
        reply = client.chat.completions.create(
            model="sample",
            messages=ASKED,
            temperature=0,
            tools=TOOLS,
            tool_choice={"type": "function", "function": {"name": "get_verse"}},
            parallel_tool_calls=False,
            max_tokens=80,
        )
        (call,) = reply.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "get_verse"
        assert json.loads(call.function.arguments).keys() == {"title", "line"}


@pytest.mark.parametrize("is_streaming", [False, True])
def test_a_strict_call_follows_its_schema(client: openai.OpenAI, is_streaming: bool) -> None:
    """The model calls of its own accord, and would write other arguments."""
    asked: Any = [{"role": "user", "content": "《静夜思》的第一句是什么？"}]
    schema = {"type": "object", "properties": {"line": {"enum": [7, 8]}}, "required": ["line"]}
    schema |= {"additionalProperties": False}
    name = called_name(client, asked)
    function = {"name": name, "parameters": schema, "strict": True}
    tools: Any = [{"type": "function", "function": function}]
    settings: Any = {"model": "sample", "messages": asked, "temperature": 0, "max_tokens": 80}
    if is_streaming:
        with client.chat.completions.stream(**settings, tools=tools) as stream:
            reply = stream.get_final_completion()
    else:
        reply = client.chat.completions.create(**settings, tools=tools)
    (call,) = reply.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments)["line"] in (7, 8)


def test_text_is_free_beside_strict_tools(client: openai.OpenAI) -> None:
    def answer(**fields: Any) -> Any:
        tools: Any = [{"type": "function", "function": {"name": "other", **fields}}]
        reply = client.chat.completions.create(
            model="sample", messages=ASKED, temperature=0, tools=tools, max_tokens=60
        )
        return reply.choices[0].message.content

    assert answer(strict=True) == answer()
    assert answer()


def called_name(client: openai.OpenAI, asked: Any) -> str:
    """The tool that the sample calls for a question."""
    reply = client.chat.completions.create(
        model="sample", messages=asked, temperature=0, tools=TOOLS
    )
    (call,) = reply.choices[0].message.tool_calls or []
    return call.function.name


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_allowed_tools_are_called(client: openai.OpenAI, mode: Any) -> None:
    asked: Any = [{"role": "user", "content": "《静夜思》的第一句是什么？"}]
    name = called_name(client, asked)
    other = {"type": "function", "function": {"name": "other"}}
    allowed = {"mode": mode, "tools": [other]}
    reply = client.chat.completions.create(
        model="sample",
        messages=asked,
        temperature=0,
        tools=[*TOOLS, other],
        tool_choice={"type": "allowed_tools", "allowed_tools": allowed},
        max_tokens=60,
        parallel_tool_calls=False,
    )
    called = [call.function.name for call in reply.choices[0].message.tool_calls or []]
    assert name not in called
    assert mode == "auto" or called == ["other"]


def test_no_tool_is_called_with_none(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "《静夜思》的第一句是什么？"}]
    called = client.chat.completions.create(
        model="sample", messages=asked, temperature=0, tools=TOOLS
    )
    assert called.choices[0].finish_reason == "tool_calls"
    plain = client.chat.completions.create(
        model="sample", messages=asked, temperature=0, tools=TOOLS, tool_choice="none"
    )
    assert not plain.choices[0].message.tool_calls


@pytest.mark.parametrize("is_streaming", [False, True])
def test_a_loop_with_a_tool(client: openai.OpenAI, is_streaming: bool) -> None:
    """Question, call, result, answer: the whole round of an agent."""
    messages: Any = [{"role": "user", "content": "《静夜思》的第一句是什么？"}]
    with client.chat.completions.stream(
        model="sample", messages=messages, temperature=0, tools=TOOLS
    ) as stream:
        final = stream.get_final_completion()
    if not is_streaming:
        final = client.chat.completions.create(
            model="sample", messages=messages, temperature=0, tools=TOOLS
        )
    message = final.choices[0].message
    (call,) = message.tool_calls or []
    assert call.type == "function"
    assert call.function.name in ("get_verse", "get_poem")
    messages += [
        message.model_dump(exclude_none=True, exclude={"parsed"}),
        {"role": "tool", "tool_call_id": call.id, "content": "床前明月光"},
    ]
    for one in messages[1].get("tool_calls", []):
        one["function"].pop("parsed_arguments", None)
    reply = client.chat.completions.create(
        model="sample", messages=messages, temperature=0, tools=TOOLS
    )
    assert "床前明月光" in (reply.choices[0].message.content or "")


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["sample"]
    assert client.models.retrieve("sample").owned_by == "glm4-sample"
    with pytest.raises(openai.NotFoundError, match="there is no model 'other'"):
        client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.chat.completions.create(model="other", messages=ASKED)


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize(
    "title",
    [{"type": "nothing"}, {"allOf": [{"pattern": f"a{{{index}}}"} for index in range(59)]}],
)
def test_the_tool_whose_schema_is_wrong_is_named(
    client: openai.OpenAI, choice: Any, title: dict[str, Any]
) -> None:
    wrong = {"type": "object", "properties": {"title": title}}
    function = {"name": "get_poem", "parameters": wrong, "strict": True}
    tools: Any = [TOOLS[0], {"type": "function", "function": function}]
    with pytest.raises(openai.BadRequestError, match="tool 'get_poem': the json schema"):
        client.chat.completions.create(
            model="sample", messages=ASKED, tools=tools, tool_choice=choice
        )
