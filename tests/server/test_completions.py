"""Completions, tokens and templates: the endpoints without a conversation."""

import openai
import pytest

import glm_runtime
from support.servers import ServerProcess

BEGUN = "床前明月光，"


def test_a_text_is_continued(client: openai.OpenAI, model: glm_runtime.Model) -> None:
    reply = client.completions.create(model="sample", prompt=BEGUN, temperature=0, max_tokens=8)
    alone = "".join(one.text for one in model.generate(BEGUN, temperature=0, max_new_tokens=8))
    assert reply.choices[0].text == alone


def test_sixteen_tokens_are_the_default(client: openai.OpenAI) -> None:
    reply = client.completions.create(
        model="sample", prompt=BEGUN, logit_bias={"0": 0}, extra_body={"min_p": 0.0}
    )
    assert reply.usage is not None
    assert reply.usage.completion_tokens <= 16


def test_many_prompts_and_choices_are_numbered(
    client: openai.OpenAI, model: glm_runtime.Model
) -> None:
    prompts = [BEGUN, "春眠不觉晓，"]
    reply = client.completions.create(
        model="sample", prompt=prompts, n=2, temperature=0, max_tokens=6
    )
    alone = [
        "".join(one.text for one in model.generate(prompt, temperature=0, max_new_tokens=6))
        for prompt in prompts
    ]
    assert [choice.text for choice in reply.choices] == [alone[0]] * 2 + [alone[1]] * 2
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == sum(len(model.tokenizer.encode(one)) for one in prompts)


def test_tokens_are_a_prompt(client: openai.OpenAI, model: glm_runtime.Model) -> None:
    ids = model.tokenizer.encode(BEGUN)
    for prompt in (ids, [ids]):
        reply = client.completions.create(
            model="sample", prompt=prompt, temperature=0, max_tokens=4
        )
        assert reply.usage is not None
        assert reply.usage.prompt_tokens == len(ids)


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    whole = client.completions.create(
        model="sample", prompt=BEGUN, temperature=0, max_tokens=9, logprobs=2
    )
    chunks = list(
        client.completions.create(
            model="sample",
            prompt=BEGUN,
            temperature=0,
            max_tokens=9,
            logprobs=2,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    last = chunks.pop()
    assert last.usage is not None
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in chunks)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert whole.choices[0].logprobs is not None
    offsets = [
        offset
        for chunk in chunks
        if chunk.choices[0].logprobs is not None
        for offset in chunk.choices[0].logprobs.text_offset or []
    ]
    assert offsets == whole.choices[0].logprobs.text_offset


def test_texts_become_tokens_and_come_back(server: ServerProcess, model: glm_runtime.Model) -> None:
    text = "床前明月光 <|user|>"
    plain = server.request("/tokenize", {"content": text}).json["tokens"]
    assert plain == model.tokenizer.encode(text)
    sanitized = server.request("/tokenize", {"content": text, "is_sanitized": True}).json["tokens"]
    assert len(sanitized) > len(plain)
    back = server.request("/detokenize", {"tokens": sanitized}).json["content"]
    assert back == text


def test_the_template_is_applied(server: ServerProcess, model: glm_runtime.Model) -> None:
    messages = [{"role": "user", "content": "你好"}]
    reply = server.request("/apply-template", {"messages": messages}).json
    assert reply["tokens"] == model.prepare_chat(messages).token_ids
    assert reply["prompt"].startswith("[gMASK]<sop>")
    assert "你好" in reply["prompt"]


@pytest.mark.parametrize("field", [{"suffix": "x"}, {"best_of": 2}])
def test_what_it_does_not_do_is_refused_by_name(
    server: ServerProcess, field: dict[str, object]
) -> None:
    reply = server.request("/v1/completions", {"prompt": "x", **field})
    assert reply.status == 400
    assert reply.json["error"]["param"] == next(iter(field))


@pytest.mark.parametrize("text", [BEGUN + "疑是地上霜。", "In the beginning <|user|> 🜁🜁", "And"])
@pytest.mark.parametrize("is_tokens", [False, True])
def test_an_echo_has_the_log_probabilities_of_the_prompt(
    client: openai.OpenAI, model: glm_runtime.Model, text: str, is_tokens: bool
) -> None:
    """Against `Model.score`; other chunks of the prompt add in another order."""
    ids = model.tokenizer.encode(text)
    reply = client.completions.create(
        model="sample",
        prompt=ids if is_tokens else text,
        echo=True,
        max_tokens=1,
        logprobs=1,
        temperature=0,
    )
    choice = reply.choices[0]
    assert choice.text.startswith(text)
    found = choice.logprobs
    assert found is not None
    assert found.tokens is not None and found.text_offset is not None
    assert found.token_logprobs is not None and found.top_logprobs is not None
    assert len(found.tokens) == len(ids) + 1
    assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
    if len(ids) > 1:
        expected = model.score(ids[:1], ids[1:])
        assert found.token_logprobs[1:-1] == pytest.approx(expected.logprobs, abs=0.05)
    for position in range(1, len(ids)):
        best = max(found.top_logprobs[position].values())
        score = model.score(ids[:position], ids[position : position + 1])
        assert (found.token_logprobs[position] == best) == score.is_greedy
    raw = [model.tokenizer.token_bytes(id_) for id_ in ids]
    assert found.text_offset[:-1] == [
        len(b"".join(raw[:place]).decode("utf-8", "ignore")) for place in range(len(ids))
    ]


def test_an_echo_may_come_without_an_answer(
    server: ServerProcess, model: glm_runtime.Model
) -> None:
    body = {"prompt": [BEGUN, "And"], "echo": True, "max_tokens": 0, "logprobs": 0, "n": 2}
    reply = server.request("/v1/completions", body).json
    assert [choice["text"] for choice in reply["choices"]] == [BEGUN] * 2 + ["And"] * 2
    assert {choice["finish_reason"] for choice in reply["choices"]} == {"length"}
    assert reply["usage"]["completion_tokens"] == 0
    logprobs = reply["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(model.tokenizer.encode(BEGUN))
    assert logprobs["top_logprobs"] is None


def test_a_streamed_echo_says_the_same(server: ServerProcess) -> None:
    for limit in (0, 5):
        body = {"prompt": BEGUN, "echo": True, "max_tokens": limit, "logprobs": 2, "temperature": 0}
        whole = server.request("/v1/completions", body).json["choices"][0]
        chunks = server.request("/v1/completions", {**body, "stream": True}).events
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        assert "".join(choice["text"] for choice in choices) == whole["text"]
        assert choices[-1]["finish_reason"] == whole["finish_reason"]
        for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
            parts = [choice["logprobs"][name] for choice in choices]
            assert [one for part in parts for one in part] == whole["logprobs"][name]


def test_an_echo_without_log_probabilities_reads_nothing_twice(server: ServerProcess) -> None:
    body = {"prompt": BEGUN * 20, "echo": True, "max_tokens": 1}
    server.request("/v1/completions", body)
    again = server.request("/v1/completions", body).json
    assert again["choices"][0]["text"].startswith(BEGUN * 20)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 50
    scored = server.request("/v1/completions", {**body, "logprobs": 0}).json
    assert scored["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_no_token_without_an_echo_is_refused(server: ServerProcess) -> None:
    reply = server.request("/v1/completions", {"prompt": "x", "max_tokens": 0})
    assert reply.status == 400
    assert "max_tokens: 0" in reply.json["error"]["message"]
