"""What people expect of a Python package: one line for one answer, asyncio, `with`, scores."""

import asyncio
import dataclasses
import gc
import itertools
import json
import random
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from glm_runtime import (
    ChatOptions,
    Conversation,
    DeviceError,
    GenerationError,
    GenerationSettings,
    GlmRuntimeError,
    Grammar,
    GrammarError,
    Model,
    PromptError,
    Request,
    load,
)
from glm_runtime.arrays import FloatArray
from glm_runtime.graph.decoding import Decoder
from glm_runtime.text.answer import AnswerForm, AnswerReader
from glm_runtime.text.chat_messages import count_calls
from glm_runtime.text.chat_template import ChatTemplate
from glm_runtime.text.dialects.name_line import NameLineCalls
from runtime.tiny_folder import CHAT_TEMPLATE

MESSAGES = [{"role": "user", "content": "Who created the earth?"}]
GREEDY = {"temperature": 0, "max_new_tokens": 6}


def test_ask_returns_the_text(tiny_model: Model):
    pieces = tiny_model.chat(MESSAGES, **GREEDY)
    expected = "".join(piece.text for piece in pieces)
    assert tiny_model.ask("Who created the earth?", **GREEDY) == expected


def test_async_answers_are_the_same_and_the_event_loop_goes_on(tiny_model: Model):
    async def run() -> tuple[list, list, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(tick())
        chatted = [piece async for piece in tiny_model.achat(MESSAGES, **GREEDY)]
        generated = [piece async for piece in tiny_model.agenerate("In the", **GREEDY)]
        other.cancel()
        return chatted, generated, ticks

    chatted, generated, ticks = asyncio.run(run())
    assert chatted == list(tiny_model.chat(MESSAGES, **GREEDY))
    assert generated == list(tiny_model.generate("In the", **GREEDY))
    assert ticks > len(chatted)


def test_async_answers_can_be_left_and_cancelled(tiny_model: Model):
    async def take_one() -> None:
        pieces = tiny_model.agenerate("In the", temperature=0)
        async for _ in pieces:
            break
        await pieces.aclose()

    async def cancel() -> None:
        async def read() -> None:
            async for _ in tiny_model.agenerate("In the", temperature=0, is_eos_ignored=True):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(take_one())
    asyncio.run(cancel())


def test_async_errors_arrive_at_the_caller(tiny_model: Model):
    async def run() -> None:
        async for _ in tiny_model.achat([{"role": "nobody", "content": "a"}]):
            pass

    with pytest.raises(PromptError, match="unknown role nobody"):
        asyncio.run(run())


def test_a_model_closes_at_the_end_of_with(tiny_folder: Path):
    with load(tiny_folder, device="cpu", threads=1) as model:
        session = model.new_session()
        assert list(session.generate([5], **GREEDY))
    with pytest.raises(GenerationError, match="the model was closed; load the folder again"):
        list(session.generate([5, 6], **GREEDY))
    with pytest.raises(GenerationError, match="the model was closed; load the folder again"):
        list(model.generate("In the"))
    model.close()  # twice is fine


def test_a_closed_model_frees_its_weights(tiny_folder: Path):
    with load(tiny_folder, device="cpu", threads=1) as model:
        onnxruntime_session = weakref.ref(model.graph.session)
        assert model.ask("a", **GREEDY) is not None
    gc.collect()
    assert onnxruntime_session() is None


def test_the_representation_is_short(tiny_model: Model):
    assert repr(tiny_model) == "<glm_runtime.Model tiny (glm4), none, on CPU (1 thread)>"


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ("hi", r"the messages are 'hi' where a list .* or call Model\.ask with the text"),
        ({"role": "user"}, r"the messages are \{'role': 'user'\} where a list of messages"),
        (["hi"], r"the messages are a list with 'hi' where .* or call Model\.ask"),
        ([("user", "hi")], r"the messages are a list with \('user', 'hi'\) where"),
        (5, "the messages are 5 where a list of messages is expected"),
        ("x" * 99, r"the messages are 'x{59}\.\.\. where"),
    ],
)
def test_what_is_no_list_of_messages_is_refused(tiny_model: Model, messages: object, sentence: str):
    with pytest.raises(PromptError, match=sentence) as caught:
        tiny_model.chat(messages)  # type: ignore[arg-type]
    assert "--" not in str(caught.value)


def test_an_unknown_device_is_refused_by_a_sentence(tiny_folder: Path):
    sentence = "the device is 'foo' where one of auto, cpu, cuda, .* is expected"
    with pytest.raises(DeviceError, match=sentence):
        load(tiny_folder, device="foo")  # type: ignore[arg-type]


def test_calls_have_ids_that_differ_within_a_conversation(tiny_model: Model):
    form = AnswerForm(dialect=NameLineCalls(("add",)), num_calls=2)
    reader = AnswerReader(tiny_model.tokenizer, form, ())
    for token in tiny_model.tokenizer.encode('add\n{"a": 1}\nadd\n{"a": 2}'):
        reader.add(token)
    assert [call.id for call in reader.finish().tool_calls] == ["call_2", "call_3"]


def test_earlier_calls_of_the_messages_are_counted(tiny_model: Model):
    call = {"id": "x", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    said = {"role": "assistant", "content": "", "tool_calls": [call, call]}
    assert count_calls([said, *MESSAGES, said, {"role": "assistant", "tool_calls": None}]) == 4
    assert tiny_model.prepare_chat(MESSAGES).form.num_calls == 0


class Verse:
    """As pydantic's classes do, it tells its JSON schema."""

    @classmethod
    def model_json_schema(cls) -> dict[str, object]:
        return {
            "type": "object",
            "properties": {"chapter": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["chapter"],
            "additionalProperties": False,
        }


@pytest.mark.parametrize(
    "schema", [Verse, Verse(), Verse.model_json_schema(), json.dumps(Verse.model_json_schema())]
)
def test_a_class_is_a_schema(tiny_model: Model, schema: object):
    pytest.importorskip("llguidance")
    answer = tiny_model.ask("Which?", json_schema=schema, seed=3, temperature=1)
    assert 1 <= json.loads(answer)["chapter"] <= 9
    assert Grammar.from_schema(schema) == Grammar(  # type: ignore[arg-type]
        "json_schema", json.dumps(Verse.model_json_schema())
    )


def test_pydantic_itself_is_understood(tiny_model: Model):
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Answer", __config__={"extra": "forbid"}, is_true=(bool, ...))
    answer = tiny_model.ask("Is it?", json_schema=model, temperature=0)
    assert isinstance(model.model_validate_json(answer).is_true, bool)


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_class_describes_the_parameters_of_a_tool(is_wrapped: bool):
    function = {"name": "look_up", "parameters": Verse}
    tool = {"type": "function", "function": function} if is_wrapped else function
    (found,) = ChatOptions(tools=(tool,)).tools
    described = found["function"] if is_wrapped else found
    assert described == {"name": "look_up", "parameters": Verse.model_json_schema()}
    assert function["parameters"] is Verse  # the caller's object is not changed


@pytest.mark.parametrize("schema", [5, dict, {"a": object()}, object()])
def test_what_is_no_schema_is_refused(schema: object):
    with pytest.raises(GrammarError, match=r"JSON schema cannot be written as JSON .*; give a"):
        Grammar.from_schema(schema)  # type: ignore[arg-type]


def test_scores_are_the_log_softmax_of_each_step(tiny_model: Model):
    """Against one run for each token; kernels of one and of several rows differ by rounding only.

    150 tokens cross the size of a chunk (128), with the prompt's end before, at and after it.
    """
    ids = [5 + i * 7 % 300 for i in range(150)]
    decoder = Decoder(tiny_model.graph, tiny_model.manifest.model)
    expected = []
    for token, following in itertools.pairwise(ids):
        logits = decoder.append([token])[-1].astype(np.float64)
        expected.append(logits[following] - np.log(np.exp(logits).sum()))
    for first in (1, 20, 127, 128, 129, 149):
        score = tiny_model.score(ids[:first], ids[first:])
        assert score.token_ids == tuple(ids[first:])
        assert score.logprobs == pytest.approx(expected[first - 1 :], abs=1e-4)
        assert score.total == pytest.approx(sum(score.logprobs))


def test_shared_prefixes_are_read_once(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pairs score as each one alone, and every different prefix is one token that is read."""
    draw = random.Random(3)
    shared = [draw.randrange(300) for _ in range(200)]
    pairs = [([7], [8, 9, 10]), ([7, 8], [9, 10]), ([7, 8], [9]), ([7], [8, 9, 10])]
    for _ in range(30):
        first, length = draw.randrange(1, 200), draw.randrange(1, 5)
        pairs.append((shared[:first], [draw.choice((5, 6)) for _ in range(length)]))
    pairs.append((shared, [5] * 57))  # one token more than the context of 256
    alone = [tiny_model.score(*pair) for pair in pairs]
    read: list[int] = []
    append = Decoder.append

    def count(self: Decoder, tokens: Sequence[int], num_logits: int = 1) -> FloatArray:
        read.append(len(tokens))
        return append(self, tokens, num_logits)

    monkeypatch.setattr(Decoder, "append", count)
    found = dict(tiny_model.score_many(pairs))
    prefixes = {(*first, *rest)[:end] for first, rest in pairs for end in range(len(first + rest))}
    assert sum(read) == len(prefixes - {()})
    assert sorted(found) == list(range(len(pairs)))
    for index, score in enumerate(alone):
        assert found[index].token_ids == score.token_ids
        assert found[index].logprobs == pytest.approx(score.logprobs, abs=1e-4)
        assert found[index].is_greedy == score.is_greedy


def test_a_greedy_answer_scores_as_greedy(tiny_model: Model):
    said = [piece.token_id for piece in tiny_model.generate("In the", **GREEDY)]
    prompt = tiny_model.tokenizer.encode("In the")
    assert tiny_model.score(prompt, said).is_greedy
    other = [said[0], (said[1] + 1) % 300, *said[2:]]
    assert not tiny_model.score(prompt, other).is_greedy


def test_texts_are_encoded_together(tiny_model: Model):
    whole = tiny_model.tokenizer.encode("In the beginning")
    score = tiny_model.score("In the", " beginning")
    assert whole[-len(score.token_ids) :] == list(score.token_ids)
    assert tiny_model.tokenizer.decode(list(score.token_ids)) == " beginning"


@pytest.mark.parametrize(
    ("prompt", "continuation", "sentence"),
    [
        ("", "a", "the prompt has no token where at least one is expected"),
        ("a", "", "the continuation has no token where at least one is expected"),
        ([5] * 200, [5] * 200, "400 tokens but the model's context length is 256"),
        ([5], [10**6], "holds the id 1000000"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    tiny_model: Model, prompt: str, continuation: str, sentence: str
):
    with pytest.raises(PromptError, match=sentence):
        tiny_model.score(prompt, continuation)


def test_ids_may_be_an_array(tiny_model: Model):
    """Before: the truth value of an array is ambiguous."""
    plain = list(tiny_model.generate([5, 6, 7], **GREEDY))
    assert list(tiny_model.generate(np.array([5, 6, 7]), **GREEDY)) == plain
    score = tiny_model.score(np.array([5, 6]), np.array([7]))
    assert score == tiny_model.score([5, 6], [7])


def test_results_carry_the_ids_of_their_calls(tiny_model: Model):
    template = CHAT_TEMPLATE.replace("'assistant']", "'assistant', 'observation']")
    model = dataclasses.replace(tiny_model, chat_template=ChatTemplate(template))
    conversation = Conversation(model, **GREEDY)
    calls = [{"id": f"call_{i}", "function": {"name": "a", "arguments": "{}"}} for i in (3, 4)]
    said = {"role": "assistant", "content": "", "tool_calls": calls}
    conversation.messages = [*MESSAGES, said]
    list(conversation.return_results(["one", "two"]))
    ids = [message.get("tool_call_id") for message in conversation.messages]
    assert ids[2:4] == ["call_3", "call_4"]


WRONG_CLASSES = {
    "settings": (lambda model: model.ask("x", {"temperature": 1}), "as keywords, such as"),
    "options": (lambda model: model.ask("x", options={"tools": []}), "ChatOptions are expected"),
    "no text": (lambda model: model.ask(None, max_new_tokens=1), "None where a text is expected"),
    "thinking": (
        lambda model: model.ask("x", options=ChatOptions(enable_thinking="no")),
        "enable_thinking is 'no' where true or false is expected",
    ),
    "continued": (lambda _: ChatOptions(continues_answer=None), "continues_answer is None where"),
    "sanitized": (lambda _: ChatOptions(is_sanitized=1), "is_sanitized is 1 where true or false"),
    "template": (lambda _: ChatOptions(template=True), "template is True where the name of a"),
    "tools": (lambda _: ChatOptions(tools="get_verse"), "tools is 'get_verse' where a list"),
    "one tool": (lambda _: ChatOptions(tools={"name": "x"}), "where a list of objects"),
    "messages": (lambda model: model.ask(MESSAGES), "list of messages to Model.chat"),
    "grammar": (lambda model: model.ask("x", grammar="[a-z]"), "a Grammar is expected"),
    "rope scaling": (lambda model: load(model, rope_scaling="yarn"), "a RopeScaling is expected"),
    "request": (lambda model: list(model.generate_many([MESSAGES])), "a Request is expected"),
    "stop": (lambda _: GenerationSettings(stop=5), "stop is 5 where a tuple of texts is expected"),
    "stop of numbers": (lambda _: GenerationSettings(stop=(5,)), r"stop is \(5,\) where a tuple"),
    "prompt": (lambda model: model.generate(None), "None where a text or a list of token ids"),
    "bytes": (lambda model: model.generate(b"ab"), "b'ab' where a text or a list of token ids"),
    "fractions": (lambda model: model.generate([1.5]), r"\[1.5\] where a text or a list of token"),
    "words": (lambda model: model.new_session().generate(["a"]), "where a text or a list of token"),
    "request of words": (lambda _: Request(["a"]), "where a text or a list of token ids"),
    "score": (lambda model: model.score("a", None), "None where a text or a list of token ids"),
    "one text": (lambda model: model.generate_many("ab"), "the text 'ab' where a list is expected"),
    "two grammars": (
        lambda model: model.ask("x", json_schema={}, grammar=Grammar("regex", "a")),
        "json_schema and grammar are both given",
    ),
}


@pytest.mark.parametrize("name", WRONG_CLASSES)
def test_values_of_other_classes_are_refused(name: str, tiny_model: Model, tiny_folder: Path):
    """Before: an AttributeError, or an answer to nothing; the second grammar was dropped."""
    call, message = WRONG_CLASSES[name]
    with pytest.raises(GlmRuntimeError, match=message):
        call(tiny_folder if name == "rope scaling" else tiny_model)
