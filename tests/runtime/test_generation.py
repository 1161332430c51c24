"""Answers against a plain greedy loop; the tiny model is random, so its text is noise."""

from pathlib import Path

import pytest

from glm_runtime import DrySettings, GenerationSettings, Model, SamplingSettings, load
from glm_runtime.answering.generation import AnswerWriter, Request, generate
from glm_runtime.errors import PromptError, SamplingError
from glm_runtime.graph.decoding import Decoder
from glm_runtime.text.answer import AnswerForm
from glm_runtime.text.dialects.name_line import NameLineCalls
from glm_runtime.text.tool_calls import ToolCall
from runtime.greedy_answers import (
    GREEDY,
    PROMPT,
    answer,
    plain_greedy,
    text_of,
    with_eos,
    write_tokens,
)
from runtime.tiny_folder import TinyShape, build_tiny_folder


def test_greedy_tokens_are_those_of_a_plain_loop(tiny_model: Model):
    prompt_ids = tiny_model.tokenizer.encode(PROMPT)
    expected = plain_greedy(tiny_model, prompt_ids, 60)
    pieces = answer(with_eos(tiny_model), max_new_tokens=60)
    assert [piece.token_id for piece in pieces] == expected
    assert [piece.finish_reason for piece in pieces] == [None] * 59 + ["length"]


def test_the_text_is_that_of_all_tokens(tiny_model: Model):
    pieces = answer(tiny_model, max_new_tokens=60)
    assert text_of(pieces) == tiny_model.tokenizer.decode([piece.token_id for piece in pieces])


def test_any_token_of_the_eos_set_ends_the_answer_and_is_reported(tiny_model: Model):
    tokens = [piece.token_id for piece in answer(tiny_model, max_new_tokens=30)]
    for eos in (tokens[4], tokens[9]):
        last = tokens.index(eos)
        pieces = answer(with_eos(tiny_model, 0, eos), max_new_tokens=30)
        assert [piece.token_id for piece in pieces] == tokens[: last + 1]
        assert pieces[-1].finish_reason == "stop"


def test_a_stop_string_ends_the_answer_and_nothing_of_it_is_shown(tiny_model: Model):
    pieces = answer(tiny_model, max_new_tokens=40)
    text = text_of(pieces)
    start = next(i for i in range(5, len(text)) if text.find(text[i : i + 4]) == i)
    stop = text[start : start + 4]
    stopped = answer(tiny_model, max_new_tokens=40, stop=("not there", stop))
    assert text_of(stopped) == text[:start]
    assert stopped[-1].finish_reason == "stop_string"
    assert [piece.stop_string for piece in stopped] == [*[None] * (len(stopped) - 1), stop]
    assert pieces[-1].stop_string is None
    assert len(stopped) < len(pieces)


def test_text_held_back_for_a_stop_string_is_shown_when_the_answer_ends(tiny_model: Model):
    pieces = answer(tiny_model, max_new_tokens=10)
    text = text_of(pieces)
    stop = text[-1] + "that never comes"
    assert text_of(answer(tiny_model, max_new_tokens=10, stop=(stop,))) == text


def test_a_full_context_ends_the_answer(tiny_model: Model):
    model = with_eos(tiny_model)
    context_length = model.manifest.model.context_length
    prompt_ids = [5] * (context_length - 3)
    pieces = answer(model, prompt_ids)
    # Three tokens can be read back, a fourth is the answer to the last of them.
    assert len(pieces) == 4
    assert pieces[-1].finish_reason == "length"
    assert answer(model, [5] * context_length)[0].finish_reason == "length"


def test_one_seed_gives_one_answer(tiny_model: Model):
    def run(seed: int) -> list[int]:
        sampling = SamplingSettings(temperature=2.0, seed=seed)
        pieces = answer(with_eos(tiny_model), sampling=sampling, max_new_tokens=30)
        return [piece.token_id for piece in pieces]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_the_repetition_penalty_sees_prompt_and_answer(tiny_model: Model):
    sampling = SamplingSettings(temperature=0, repetition_penalty=1e6)
    prompt_ids = tiny_model.tokenizer.encode(PROMPT)
    pieces = answer(with_eos(tiny_model), prompt_ids, sampling=sampling, max_new_tokens=40)
    tokens = [piece.token_id for piece in pieces]
    assert len(set(tokens)) == len(tokens)
    assert not set(tokens) & set(prompt_ids)


def test_an_answer_goes_on_from_what_the_decoder_has_read(tiny_model: Model):
    entry = tiny_model.manifest.model
    ids = tiny_model.tokenizer.encode(PROMPT)
    decoder = Decoder(tiny_model.graph, entry)
    decoder.append(ids[:4])
    settings = GenerationSettings(GREEDY, max_new_tokens=10)
    request = Request(ids, settings)
    writer = AnswerWriter(tiny_model.tokenizer, entry, request)
    pieces = list(generate(decoder, writer, request))
    assert pieces == answer(tiny_model, max_new_tokens=10)


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("", "the prompt is empty where at least one token is expected; give a text"),
        ([], "the prompt is empty"),
        ([5] * 257, "the sequence has 257 tokens but the model's context length is 256; shorten"),
        ([5, -1], "holds the id -1 where ids below 337 are expected"),
        ([337], "holds the id 337 where"),
        ([5, 336, 337], "holds the id 337 where"),
    ],
)
def test_a_prompt_the_model_cannot_take_is_refused_at_once(
    tiny_model: Model, prompt: str | list[int], sentence: str
):
    assert tiny_model.manifest.model.tokenizer_vocab_size == 337
    with pytest.raises(PromptError, match=sentence):
        tiny_model.generate(prompt)  # not even iterated


def test_the_first_and_the_last_token_of_the_vocabulary_can_be_read(tiny_model: Model):
    assert len(answer(tiny_model, [0, 336], max_new_tokens=1)) == 1


@pytest.mark.parametrize(
    ("max_new_tokens", "capacity"), [(10, 512), (300, 768), (600, 1024), (None, 1024)]
)
def test_the_cache_is_reserved_once_for_prompt_and_answer(
    tmp_path: Path, max_new_tokens: int | None, capacity: int
):
    """A cache that grows is copied. An answer reserves at most 512 tokens, rounded up to 256."""
    model = with_eos(load(build_tiny_folder(tmp_path / "long", TinyShape(context_length=2048))))
    settings = GenerationSettings(GREEDY, max_new_tokens)
    decoder = Decoder(model.graph, model.manifest.model)
    request = Request([5] * 300, settings)
    writer = AnswerWriter(model.tokenizer, model.manifest.model, request)
    next(generate(decoder, writer, request))
    assert decoder._cache.capacity == capacity


@pytest.mark.parametrize("count", [0, -5])
def test_an_answer_of_no_tokens_is_refused(count: int):
    with pytest.raises(SamplingError, match=f"max_new_tokens is {count} where 1 or more"):
        GenerationSettings(max_new_tokens=count)


def test_an_empty_stop_string_is_refused():
    with pytest.raises(SamplingError, match="stop string is empty"):
        GenerationSettings(stop=("",))


def test_ignoring_the_end_of_text_never_chooses_it(tiny_model: Model):
    """Also where it would be the likeliest token by far, and where one is a padding id."""
    free = [piece.token_id for piece in answer(with_eos(tiny_model), max_new_tokens=30)]
    model = with_eos(tiny_model, *free[4:9], 337, 447)
    assert answer(model, max_new_tokens=30)[-1].finish_reason == "stop"
    pieces = answer(model, max_new_tokens=30, is_eos_ignored=True)
    assert len(pieces) == 30 and pieces[-1].finish_reason == "length"
    assert not {piece.token_id for piece in pieces} & set(free[4:9])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_thinking_tokens": -1}, "max_thinking_tokens is -1 where 0 or more"),
        ({"top_logprobs": -1}, "top_logprobs is -1 where 0 or more"),
        ({"stop": "the end"}, r"stop is the text 'the end' where a tuple of texts is expected"),
    ],
)
def test_other_settings_out_of_range_are_refused(settings: dict, sentence: str):
    with pytest.raises(SamplingError, match=sentence):
        GenerationSettings(**settings)


@pytest.mark.parametrize("limit", [None, 20])
def test_a_finished_call_is_the_reason_unless_the_answer_was_cut_off(
    tiny_model: Model, limit: int | None
):
    """After "length" a caller asks for more; after "tool_calls" it runs the tool."""
    entry, tokenizer = tiny_model.manifest.model, tiny_model.tokenizer
    tokens = tokenizer.encode('get\n{"a": 1}')
    form = AnswerForm(is_chat=True, dialect=NameLineCalls(("get",)))
    request = Request([5], GenerationSettings(GREEDY, limit and len(tokens)), form)
    writer = AnswerWriter(tokenizer, entry, request)
    pieces = write_tokens(writer, tokens if limit else [*tokens, entry.eos_token_ids[1]])
    assert text_of(pieces) == ""
    assert pieces[-1].tool_calls == (ToolCall("get", '{"a": 1}'),)
    assert pieces[-1].finish_reason == ("length" if limit else "tool_calls")
    assert not any(piece.finish_reason or piece.tool_calls for piece in pieces[:-1])


def test_dry_breaks_a_loop(tiny_model: Model):
    """Greedy answers of a random model soon go in circles; with DRY no run of 8 comes twice."""
    free = [piece.token_id for piece in answer(with_eos(tiny_model), max_new_tokens=200)]
    sampling = SamplingSettings(temperature=0, dry=DrySettings(5.0, 2.0, 2, ()))
    pieces = answer(with_eos(tiny_model), max_new_tokens=200, sampling=sampling)
    tokens = [piece.token_id for piece in pieces]

    def count_runs(ids: list[int]) -> int:
        runs = [tuple(ids[i : i + 8]) for i in range(len(ids) - 7)]
        return len(runs) - len(set(runs))

    assert count_runs(free) > 4
    assert count_runs(tokens) == 0
