"""Many answers side by side: each is the one its prompt gets alone."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from glm_runtime import (
    GenerationError,
    GenerationSettings,
    Grammar,
    Model,
    PromptError,
    SamplingError,
    SamplingSettings,
    load,
)
from glm_runtime.answering.batch import Batch, BatchPiece
from glm_runtime.answering.batch_decoder import BatchDecoder
from glm_runtime.answering.generation import Request
from glm_runtime.answering.settings import Piece
from glm_runtime.graph.decoding import PREFILL_CHUNK, Decoder
from glm_runtime.text.answer import AnswerForm
from runtime.greedy_answers import with_eos
from runtime.tiny_folder import TinyShape, build_tiny_folder

GREEDY = SamplingSettings(temperature=0)
PROMPTS = [
    "床前明月光",
    "a",
    "In the beginning God created",
    "白日依山尽，黄河" * 12,
    "0123",
    "earth",
]


def make_requests(model: Model) -> list[Request]:
    """Of all kinds: lengths, limits, seeds, penalties, thinking, grammars."""
    hot = SamplingSettings(temperature=1.5, top_p=0.9, seed=7)
    kinds = [
        (GenerationSettings(GREEDY, 30), AnswerForm()),
        (GenerationSettings(hot, 5), AnswerForm()),
        (GenerationSettings(hot, 40, grammar=Grammar("regex", "[a-f]{9}")), AnswerForm()),
        (GenerationSettings(GREEDY, 20, stop=("e",)), AnswerForm()),
        (GenerationSettings(hot, 25, max_thinking_tokens=4), AnswerForm(True, True)),
        (GenerationSettings(dataclasses.replace(hot, presence_penalty=1.0), 12), AnswerForm()),
        (GenerationSettings(GREEDY, 1, top_logprobs=0), AnswerForm()),
    ]
    encoded = [model.tokenizer.encode(prompt) for prompt in PROMPTS]
    return [
        Request(encoded[(i * 5) % len(encoded)], settings, form)
        for i, (settings, form) in enumerate(kinds * 3)
    ]


def alone(model: Model, request: Request) -> list[Piece]:
    return list(model.new_session().generate(request.prompt_ids, request.settings, request.form))


def without_logprobs(pieces: list[Piece]) -> list[Piece]:
    return [dataclasses.replace(piece, logprobs=None) for piece in pieces]


def gather(pieces: Iterator[BatchPiece]) -> dict[int, list[Piece]]:
    found: dict[int, list[Piece]] = {}
    for one in pieces:
        assert one.piece is not None, one.error
        found.setdefault(one.index, []).append(one.piece)
    return found


def make_batch(model: Model) -> Batch:
    return Batch(model.graph, model.manifest.model, model.tokenizer, model.default_settings)


@pytest.mark.parametrize("max_rows", [1, 2, 4, 16])
def test_each_answer_is_that_of_its_prompt_alone(tiny_model: Model, max_rows: int):
    """Float32 sums of several rows differ by 1e-6 of the logits: one token in 10^5."""
    model = with_eos(tiny_model, *range(40, 60))
    requests = make_requests(model)
    found = gather(make_batch(model).run(requests, max_rows))
    assert sorted(found) == list(range(len(requests)))
    for index, request in enumerate(requests):
        expected = without_logprobs(alone(model, request))
        assert without_logprobs(found[index]) == expected, index


def test_requests_are_taken_only_when_there_is_room(tiny_model: Model):
    taken: list[int] = []

    def requests() -> Iterator[Request]:
        for i in range(6):
            taken.append(i)
            yield Request([5 + i, 6], GenerationSettings(GREEDY, 3 + i))

    ended = 0
    for one in make_batch(with_eos(tiny_model)).run(requests(), 2):
        assert len(taken) <= 2 + ended
        ended += one.piece is not None and one.piece.finish_reason is not None
    assert ended == 6


def test_a_request_that_fails_is_reported_and_the_others_go_on(tiny_model: Model):
    model = with_eos(tiny_model)
    short = GenerationSettings(GREEDY, 4)
    wrong_bias = GenerationSettings(SamplingSettings(logit_bias=((10**6, 1.0),)), 4)
    stuck = GenerationSettings(GREEDY, 9, grammar=Grammar("lark", 'start: "ab" /[^\\s\\S]/'))
    requests = [
        Request([5, 6], short),
        Request([5] * 300, short),
        Request([7], wrong_bias),
        Request([9, 8], stuck),
        Request([5, 9], short),
        Request([5, 10**6], short),
    ]
    pieces = list(make_batch(model).run(requests, 2))
    errors = {one.index: one.error for one in pieces if one.error is not None}
    assert isinstance(errors[1], PromptError) and isinstance(errors[2], SamplingError)
    assert isinstance(errors[5], PromptError) and set(errors) == {1, 2, 3, 5}
    for index in (0, 4):
        mine = [one.piece for one in pieces if one.index == index]
        assert mine == alone(model, requests[index])


def test_completions_of_one_prompt_share_its_reading(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
):
    """The prompt is read once; each further row reads its last token alone."""
    model = with_eos(tiny_model)
    read: list[int] = []
    run = BatchDecoder._run

    def count(decoder: BatchDecoder, ids, mask, first: int, last: int, num_logits: int = 1):
        if last - first == 1 and ids.shape[1] > 0:
            read.append(ids.shape[1])
        return run(decoder, ids, mask, first, last, num_logits)

    monkeypatch.setattr(BatchDecoder, "_run", count)
    ids = model.tokenizer.encode(PROMPTS[3])
    requests = [
        Request(ids, GenerationSettings(SamplingSettings(temperature=2.0, seed=seed), 6))
        for seed in range(4)
    ]
    found = gather(make_batch(model).run(requests, 4))
    chunks = -(-len(ids) // PREFILL_CHUNK)
    assert sum(read[:chunks]) == len(ids)
    assert read[chunks : chunks + 3] == [1, 1, 1]
    assert len({tuple(piece.token_id for piece in found[i]) for i in range(4)}) == 4
    monkeypatch.undo()
    for index, request in enumerate(requests):
        assert found[index] == alone(model, request)


def test_rows_fill_the_context_to_its_end(tiny_model: Model):
    """More than the first buffer holds, in rows that began at different times."""
    model = with_eos(tiny_model)
    requests = [Request([5] * n, GenerationSettings(GREEDY)) for n in (250, 3, 200, 256)]
    found = gather(make_batch(model).run(requests, 2))
    for index, request in enumerate(requests):
        assert found[index] == alone(model, request)
        assert len(request.prompt_ids) + len(found[index]) == 257


def test_left_half_way_nothing_is_lost_for_others(tiny_model: Model):
    model = with_eos(tiny_model)
    batch = make_batch(model)
    requests = [Request([5 + i, 6], GenerationSettings(GREEDY, 9)) for i in range(3)]
    running = batch.run(requests, 3)
    for _ in range(5):
        next(running)
    running.close()  # type: ignore[attr-defined]
    assert gather(batch.run(requests, 3))[2] == alone(model, requests[2])


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the length of each prompt, or part of one, that a row reads alone."""
    read: list[int] = []
    run = BatchDecoder._run

    def count(decoder: BatchDecoder, ids, mask, first: int, last: int, num_logits: int = 1):
        if ids.shape[1] > 1:
            read.append(ids.shape[1])
        return run(decoder, ids, mask, first, last, num_logits)

    monkeypatch.setattr(BatchDecoder, "_run", count)
    return read


def test_the_longest_common_prefix_is_copied(tiny_model: Model, monkeypatch: pytest.MonkeyPatch):
    """Of three rows that begin like the new prompt, and not below eight tokens."""
    model, read = with_eos(tiny_model), count_reads(monkeypatch)
    prompts = [[5] * 20, [5] * 30 + [6] * 10, [5] * 25 + [7] * 10, [5] * 30 + [8] * 9]
    prompts += [[9] * 7 + [5] * 5, [9] * 7 + [6] * 5, [10] * 8 + [5] * 5, [10] * 8 + [6] * 5]
    requests = [Request(ids, GenerationSettings(GREEDY, 9)) for ids in prompts]
    found = gather(make_batch(model).run(requests, 8))
    assert read == [20, 40 - 20, 35 - 25, 39 - 30, 12, 12, 13, 13 - 8]
    monkeypatch.undo()
    for index, request in enumerate(requests):
        assert found[index] == alone(model, request)


def test_on_other_devices_prompts_are_answered_one_after_another(tiny_model: Model):
    """The graph runs on the CPU here; only its description names another device."""
    model = with_eos(tiny_model)
    graph = dataclasses.replace(model.graph, device="dml")
    batch = Batch(graph, model.manifest.model, model.tokenizer, model.default_settings)
    short = GenerationSettings(GREEDY, 4)
    requests = [Request([5, 6], short), Request([5] * 300, short), Request([5, 9], short)]
    pieces = list(batch.run(requests, 2))
    assert [one.index for one in pieces] == [0] * 4 + [1] + [2] * 4
    assert isinstance(pieces[4].error, PromptError) and pieces[4].piece is None
    for index in (0, 2):
        mine = [one.piece for one in pieces if one.index == index]
        assert mine == alone(model, requests[index])


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    shape = TinyShape(context_length=1024)
    return load(build_tiny_folder(tmp_path_factory.mktemp("folders") / "long", shape), device="cpu")


def test_rows_keep_their_tokens_when_the_buffers_grow_and_rows_leave(long_model: Model):
    """The buffers grow when a row is read and again when one takes a step."""
    entry = long_model.manifest.model
    texts = [[5, 6] * 20, [7, 8, 9] * 85, [3] * 300]
    decoder = BatchDecoder(long_model.graph, entry, 3)
    singles = [Decoder(long_model.graph, entry) for _ in texts]
    for text, single in zip(texts, singles, strict=True):
        np.testing.assert_allclose(decoder.add(text), single.prefill(text), atol=1e-4)
    assert decoder.lengths == [40, 255, 300]
    for token in range(230):
        rows = decoder.step([token] * 3)
        for row, single in zip(rows, singles, strict=True):
            np.testing.assert_allclose(row, single.append([token])[0], atol=1e-4)
    decoder.remove(0)
    assert decoder.lengths == [530, 485]
    for row, single in zip(decoder.step([4, 4]), (singles[2], singles[1]), strict=True):
        np.testing.assert_allclose(row, single.append([4])[0], atol=1e-4)
    decoder.remove(1)
    np.testing.assert_allclose(decoder.step([2])[0], singles[2].append([2])[0], atol=1e-4)


def test_rows_of_different_lengths_can_change_places(long_model: Model):
    """Row i continues from row `sources[i]`; a row may be taken twice, or not at all."""
    entry, texts = long_model.manifest.model, [[5], [6, 7, 8], [9] * 40]
    decoder = BatchDecoder(long_model.graph, entry, 3)
    for text in texts:
        decoder.add(text)
    for sources in ([2, 1, 0], [1, 1], [0, 1]):
        texts = [texts[source] + [4] for source in sources]
        decoder.reorder(sources)
        rows = decoder.step([4] * len(sources))
        assert decoder.lengths == [len(text) for text in texts]
        for row, text in zip(rows, texts, strict=True):
            expected = Decoder(long_model.graph, entry).prefill(text)
            np.testing.assert_allclose(row, expected, atol=1e-4)


def test_a_prompt_that_cannot_be_read_leaves_the_rows_alone(tiny_model: Model):
    entry = tiny_model.manifest.model
    decoder, single = BatchDecoder(tiny_model.graph, entry, 2), Decoder(tiny_model.graph, entry)
    np.testing.assert_allclose(decoder.add([5, 6]), single.prefill([5, 6]), atol=1e-4)
    sentence = r"failed with 1 rows at token 2 \(.+\); try fewer rows, or check the folder"
    with pytest.raises(GenerationError, match=sentence):
        decoder.add([5, 10**6])
    with pytest.raises(PromptError, match="the sequence has 257 tokens"):
        decoder.add([5] * 257)
    assert decoder.lengths == [2]
    np.testing.assert_allclose(decoder.step([7])[0], single.append([7])[0], atol=1e-4)
    decoder.lengths = [256]
    with pytest.raises(PromptError, match="the sequence has 257 tokens"):
        decoder.step([7])


@pytest.mark.parametrize("max_rows", [0, -1])
def test_no_rows_at_all_are_refused(tiny_model: Model, max_rows: int):
    with pytest.raises(SamplingError, match=f"max_rows is {max_rows} where 1 or more"):
        tiny_model.generate_many([], max_rows)


def test_a_request_that_cannot_be_made_costs_its_own_answer(tiny_model: Model):
    """A lone surrogate is no text that a tokenizer can read."""
    given = ["a", "\ud800", "b"]
    pieces = list(tiny_model.generate_many(given, temperature=0, max_new_tokens=2))
    errors = {one.index: one.error for one in pieces if one.piece is None}
    assert isinstance(errors.pop(1), PromptError) and not errors
    assert {one.index for one in pieces if one.piece and one.piece.finish_reason} == {0, 2}
