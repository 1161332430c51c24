"""Turns over one cache against every turn from nothing; what happens when the context is full."""

import itertools

import pytest

from glm_runtime import Conversation, GenerationSettings, Model, PromptError, SamplingSettings
from glm_runtime.text.chat_template import ChatTemplate

SETTINGS = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=8)


def text_of(pieces) -> str:
    return "".join(piece.text for piece in pieces)


def test_turns_are_those_from_nothing(tiny_model: Model):
    conversation = Conversation(tiny_model, SETTINGS, system="S")
    messages: list[dict[str, str]] = [{"role": "system", "content": "S"}]
    for question in ("你好", "And then?", "0123"):
        messages.append({"role": "user", "content": question})
        said = text_of(conversation.ask(question))
        assert said == text_of(tiny_model.chat(messages, SETTINGS))
        messages.append({"role": "assistant", "content": said})
        assert conversation.messages == messages


def test_what_was_said_before_an_interruption_is_remembered(tiny_model: Model):
    conversation = Conversation(tiny_model, SETTINGS)
    pieces = conversation.ask("你好")
    said = text_of(itertools.islice(pieces, 3))
    pieces.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": said}


def test_a_message_that_does_not_fit_is_refused_and_forgotten(tiny_model: Model):
    conversation = Conversation(tiny_model, SETTINGS)
    text_of(conversation.ask("你好"))
    before = list(conversation.messages)
    with pytest.raises(
        PromptError, match="context length is 256; shorten the prompt, or start a new"
    ):
        text_of(conversation.ask("0" * 500))
    assert conversation.messages == before


def test_sliding_drops_the_oldest_turns_and_keeps_the_rest(tiny_model: Model):
    conversation = Conversation(tiny_model, SETTINGS, system="S", overflow="slide")
    asked = [f"question {number}" for number in range(30)]
    for question in asked:
        text_of(conversation.ask(question))
        context = tiny_model.prepare_chat(conversation.messages[:-1]).token_ids
        assert len(context) + 8 <= 256
        assert conversation.messages[0] == {"role": "system", "content": "S"}
        assert conversation.messages[1]["role"] == "user"
    kept = [m["content"] for m in conversation.messages if m["role"] == "user"]
    assert 2 <= len(kept) < 30 and kept == asked[-len(kept) :]
    assert conversation.dropped == 2 * (30 - len(kept))


def test_sliding_answers_as_without_what_was_dropped(tiny_model: Model):
    conversation = Conversation(tiny_model, SETTINGS, overflow="slide")
    for number in range(30):
        said = text_of(conversation.ask(f"question {number}"))
        again = text_of(tiny_model.chat(conversation.messages[:-1], SETTINGS))
        assert said == again


def test_sliding_leaves_half_of_the_context_free(tiny_model: Model):
    """Otherwise every turn would drop one more, and all the rest would be read again each time."""
    conversation = Conversation(tiny_model, SETTINGS, overflow="slide")
    drops = []
    for number in range(30):
        before = conversation.dropped
        text_of(conversation.ask(f"question {number}"))
        drops.append(conversation.dropped - before)
    assert 0 < sum(drop > 0 for drop in drops) < 8


def test_a_single_turn_too_long_is_refused_even_when_sliding(tiny_model: Model):
    conversation = Conversation(tiny_model, SETTINGS, system="S", overflow="slide")
    with pytest.raises(PromptError, match="context length is 256"):
        text_of(conversation.ask("0" * 500))
    assert conversation.messages == [{"role": "system", "content": "S"}]


def test_reset_keeps_the_system_message(tiny_model: Model):
    conversation = Conversation(tiny_model, SETTINGS, system="S")
    first = text_of(conversation.ask("你好"))
    conversation.reset()
    assert conversation.messages == [{"role": "system", "content": "S"}]
    assert text_of(conversation.ask("你好")) == first


def test_a_conversation_that_was_forgotten_does_not_come_back(tiny_model: Model):
    """An answer under way wrote itself into the history when it was collected."""
    conversation = Conversation(tiny_model, SETTINGS)
    pieces = conversation.ask("secret")
    next(pieces)
    conversation.reset()
    del pieces
    assert conversation.messages == []


def test_an_answer_left_half_way_comes_before_the_next_question(tiny_model: Model):
    conversation = Conversation(tiny_model, SETTINGS)
    pieces = conversation.ask("AAA")
    begun = next(pieces).text
    said = text_of(conversation.ask("BBB"))
    pieces.close()
    assert [message["content"] for message in conversation.messages] == ["AAA", begun, "BBB", said]


def test_sliding_renders_no_more_than_a_search_does(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
):
    """Once for each turn, and for a slide as often as the turns can be halved."""
    conversation = Conversation(tiny_model, SETTINGS, overflow="slide")
    counts = []
    render = ChatTemplate.render

    def count(*arguments, **options) -> str:
        counts[-1] += 1
        return render(*arguments, **options)

    monkeypatch.setattr(ChatTemplate, "render", count)
    for number in range(30):
        counts.append(0)
        text_of(conversation.ask(f"q{number}"))
    assert counts.count(1) > 20 and max(counts) < 9
