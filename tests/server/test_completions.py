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
            model="sample", prompt=BEGUN, temperature=0, max_tokens=9, logprobs=2, stream=True
        )
    )
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


@pytest.mark.parametrize("field", [{"echo": True}, {"suffix": "x"}, {"best_of": 2}])
def test_what_it_does_not_do_is_refused_by_name(
    server: ServerProcess, field: dict[str, object]
) -> None:
    reply = server.request("/v1/completions", {"prompt": "x", **field})
    assert reply.status == 400
    assert reply.json["error"]["param"] == next(iter(field))
