"""Answers against a plain greedy loop; the tiny model is random, so its text is noise."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken

from glm_runtime import (
    DrySettings,
    GenerationSettings,
    Grammar,
    Model,
    Piece,
    SamplingSettings,
    load,
)
from glm_runtime.answering.generation import AnswerWriter, Request, generate
from glm_runtime.answering.speculation import Drafter, PromptLookup
from glm_runtime.errors import GenerationError, PromptError, SamplingError
from glm_runtime.graph.decoding import Decoder
from glm_runtime.text.answer import PLAIN_TEXT, AnswerForm
from glm_runtime.text.dialects.name_line import NameLineCalls
from glm_runtime.text.tokenizer import Tokenizer
from glm_runtime.text.tool_calls import ToolCall
from runtime.test_decoding import run_plainly
from runtime.tiny_folder import TinyShape, build_tiny_folder, train_tokenizer

GREEDY = SamplingSettings(temperature=0)
THINKING = AnswerForm(is_chat=True, is_thinking=True)
PROMPT = "床前明月光 and the earth"


def plain_greedy(model: Model, prompt_ids: list[int], count: int) -> list[int]:
    """The reference: the whole text through the graph for every token."""
    ids = list(prompt_ids)
    for _ in range(count):
        logits = run_plainly(model, ids, 1)[0][: model.manifest.model.tokenizer_vocab_size]
        ids.append(int(np.argmax(logits)))
    return ids[len(prompt_ids) :]


def answer(model: Model, prompt: str | list[int] = PROMPT, **settings) -> list[Piece]:
    settings.setdefault("sampling", GREEDY)
    return list(model.generate(prompt, GenerationSettings(**settings)))


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def with_eos(model: Model, *eos: int) -> Model:
    entry = dataclasses.replace(model.manifest.model, eos_token_ids=eos)
    return dataclasses.replace(model, manifest=dataclasses.replace(model.manifest, model=entry))


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


class DeviceDecoder(Decoder):
    """A decoder that chooses tokens itself, as on a CUDA device, here from the CPU's logits."""

    chooses_greedily = True
    worst_logit = 0.0
    chosen = 0

    def choose_next(self, token: int) -> tuple[int, float]:
        self.chosen += 1
        logits = self.append([token])[-1][: self._model.tokenizer_vocab_size]
        return int(logits.argmax()), float(logits.max()) + self.worst_logit


def answer_on_device(
    model: Model,
    settings: GenerationSettings,
    form: AnswerForm = PLAIN_TEXT,
    drafter: Drafter | None = None,
) -> tuple[DeviceDecoder, list[Piece]]:
    entry, ids = model.manifest.model, model.tokenizer.encode(PROMPT)
    request = Request(ids, settings, form, drafter)
    decoder = DeviceDecoder(model.graph, entry)
    writer = AnswerWriter(model.tokenizer, entry, request)
    return decoder, list(generate(decoder, writer, request))


@pytest.mark.parametrize("count", [1, 2, 30])
def test_tokens_that_the_device_chooses_are_the_same_pieces(tiny_model: Model, count: int):
    free = answer(with_eos(tiny_model), max_new_tokens=30)
    for model in (with_eos(tiny_model), with_eos(tiny_model, free[9].token_id)):
        decoder, pieces = answer_on_device(model, GenerationSettings(GREEDY, count))
        assert pieces == answer(model, max_new_tokens=count)
        assert decoder.chosen == len(pieces) - 1


@pytest.mark.parametrize(
    "settings",
    [
        GenerationSettings(SamplingSettings(temperature=1, seed=1), 20),
        GenerationSettings(SamplingSettings(temperature=0, repetition_penalty=1.5), 20),
        GenerationSettings(GREEDY, 20, grammar=Grammar("regex", "[a-f]{9}")),
        GenerationSettings(GREEDY, 20, top_logprobs=2),
        GenerationSettings(GREEDY, 20, max_thinking_tokens=3),
        GenerationSettings(GREEDY, 20, is_eos_ignored=True),
    ],
)
def test_the_device_chooses_only_what_is_plainly_greedy(
    tiny_model: Model, settings: GenerationSettings
):
    """Every other setting changes the choice or needs the logits."""
    model = with_eos(tiny_model, 40)
    form = THINKING if settings.max_thinking_tokens else PLAIN_TEXT
    decoder, pieces = answer_on_device(model, settings, form)
    assert decoder.chosen == 0
    ids = model.tokenizer.encode(PROMPT)
    assert pieces == list(model.new_session().generate(ids, settings, form))


def test_the_device_does_not_choose_where_draft_tokens_are_checked(tiny_model: Model):
    model, settings = with_eos(tiny_model), GenerationSettings(GREEDY, 20)
    decoder, pieces = answer_on_device(model, settings, drafter=PromptLookup())
    assert decoder.chosen == 0
    assert pieces == answer(model, max_new_tokens=20)


@pytest.mark.parametrize("logit", [float("nan"), float("inf")])
def test_broken_logits_on_the_device_are_reported(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch, logit: float
):
    monkeypatch.setattr(DeviceDecoder, "worst_logit", logit)
    with pytest.raises(GenerationError, match=f"the model gave {logit} as its best logit"):
        answer_on_device(with_eos(tiny_model), GenerationSettings(GREEDY, 5))


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


def think(model: Model, **settings) -> list[Piece]:
    chosen = GenerationSettings(GREEDY, **settings)
    ids = model.tokenizer.encode(PROMPT)
    return list(with_eos(model).new_session().generate(ids, chosen, THINKING))


@pytest.mark.parametrize("limit", [0, 1, 7])
def test_long_thinking_is_closed_and_the_answer_begins(tiny_model: Model, limit: int):
    """The first tokens are those without a limit; a character is never cut in two."""
    free = [piece.token_id for piece in think(tiny_model, max_new_tokens=40)]
    pieces = think(tiny_model, max_new_tokens=40, max_thinking_tokens=limit)
    tokens = [piece.token_id for piece in pieces]
    closing = tiny_model.tokenizer.encode("\n</think>\n\n")
    begin = next(i for i in range(40) if tokens[i : i + len(closing)] == closing)
    assert limit <= begin <= limit + 3
    assert tokens[:begin] == free[:begin]
    end = begin + len(closing)
    assert not any(piece.text for piece in pieces[:end])
    assert not any(piece.reasoning for piece in pieces[end:])
    reasoning = "".join(piece.reasoning for piece in pieces)
    assert reasoning == tiny_model.tokenizer.decode(tokens[:begin]).strip()
    assert text_of(pieces).strip() == tiny_model.tokenizer.decode(tokens[end:]).strip()
    assert text_of(pieces).strip()


def test_an_answer_that_ends_inside_the_thinking_has_no_text(tiny_model: Model):
    pieces = think(tiny_model, max_new_tokens=20)
    assert text_of(pieces) == ""
    tokens = [piece.token_id for piece in pieces]
    assert (
        "".join(p.reasoning for p in pieces).strip() == tiny_model.tokenizer.decode(tokens).strip()
    )


def test_stop_strings_end_the_answer_not_the_thinking(tiny_model: Model):
    pieces = think(tiny_model, max_new_tokens=40, max_thinking_tokens=7)
    reasoning = "".join(piece.reasoning for piece in pieces)
    stopped = think(tiny_model, max_new_tokens=40, max_thinking_tokens=7, stop=(reasoning[:2],))
    assert "".join(piece.reasoning for piece in stopped) == reasoning


def test_tokens_of_the_reasoning_are_marked_with_those_that_end_it(tiny_model: Model):
    pieces = think(tiny_model, max_new_tokens=40, max_thinking_tokens=7)
    marked = [piece.token_id for piece in pieces if piece.is_reasoning]
    assert marked == [piece.token_id for piece in pieces[: len(marked)]]
    assert tiny_model.tokenizer.decode(marked).rstrip().endswith("</think>")
    assert not any(piece.text for piece in pieces[: len(marked) - 1])
    assert not any(piece.is_reasoning for piece in answer(tiny_model, max_new_tokens=5))


def test_ignoring_the_end_of_text_never_chooses_it(tiny_model: Model):
    """Also where it would be the likeliest token by far, and where one is a padding id."""
    free = [piece.token_id for piece in answer(with_eos(tiny_model), max_new_tokens=30)]
    model = with_eos(tiny_model, *free[4:9], 337, 447)
    assert answer(model, max_new_tokens=30)[-1].finish_reason == "stop"
    pieces = answer(model, max_new_tokens=30, is_eos_ignored=True)
    assert len(pieces) == 30 and pieces[-1].finish_reason == "length"
    assert not {piece.token_id for piece in pieces} & set(free[4:9])


def test_a_forced_token_counts_for_penalties(tiny_model: Model):
    """Each token at most once, those of the closing mark included."""
    sampling = SamplingSettings(temperature=0, presence_penalty=1e6)
    settings = GenerationSettings(sampling, 40, max_thinking_tokens=5)
    ids = tiny_model.tokenizer.encode(PROMPT)
    pieces = list(with_eos(tiny_model).new_session().generate(ids, settings, THINKING))
    tokens = [piece.token_id for piece in pieces]
    closing = tiny_model.tokenizer.encode("\n</think>\n\n")
    free = [token for token in tokens if token not in closing]
    assert len(set(free)) == len(free)
    begin = next(i for i in range(40) if tokens[i : i + len(closing)] == closing)
    assert not set(tokens[begin + len(closing) :]) & set(closing)


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


def write_tokens(writer: AnswerWriter, tokens: list[int]) -> list[Piece]:
    """The pieces of an answer whose most likely tokens are these."""
    rows = np.eye(writer._model.vocab_size, dtype=np.float32)
    return [writer.write(rows[token]) for token in tokens]


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


def test_text_in_the_token_that_ends_the_reasoning_counts_for_the_grammar(tiny_model: Model):
    inner = train_tokenizer()
    inner.add_tokens([AddedToken(">ab", special=False, normalized=False)])
    tokenizer, entry = Tokenizer(inner), tiny_model.manifest.model
    entry = dataclasses.replace(entry, tokenizer_vocab_size=inner.get_vocab_size())
    settings = GenerationSettings(GREEDY, 40, grammar=Grammar("regex", "abc"))
    writer = AnswerWriter(tokenizer, entry, Request([5], settings, THINKING))
    last = tokenizer.find_id(">ab")
    assert last == 337
    pieces = write_tokens(writer, [*tokenizer.encode("so</think"), last, 0])
    assert text_of(pieces) == "abc" and pieces[-1].finish_reason == "stop"
    assert "".join(piece.reasoning for piece in pieces) == "so"


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
