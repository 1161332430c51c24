"""Guesses change how fast an answer comes, never the answer."""

import itertools
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_runtime import (
    DrySettings,
    FolderError,
    GenerationSettings,
    Model,
    SamplingSettings,
    Session,
    load,
)
from glm_runtime.answering.generation import AnswerWriter, Request, generate
from glm_runtime.answering.speculation import DraftBudget, PromptLookup
from glm_runtime.graph.decoding import Decoder
from runtime.greedy_answers import with_eos
from runtime.tiny_folder import TinyShape, build_tiny_folder, seal_folder

PROMPT = [5, 6, 7, 5, 6, 7, 5, 6]
SAMPLINGS = {
    "greedy": SamplingSettings(temperature=0),
    "sampled": SamplingSettings(temperature=0.8, top_p=0.95, seed=3),
    "hot": SamplingSettings(temperature=2.5, seed=4),
    "penalized": SamplingSettings(
        temperature=0.5, presence_penalty=0.5, dry=DrySettings(), repetition_penalty=1.1, seed=5
    ),
}


class Oracle:
    """Guesses from a known answer; each guess is spoilt with a given chance."""

    cost = 0.0

    def __init__(
        self, answer: Sequence[int], chance: float, prompt: Sequence[int] = PROMPT
    ) -> None:
        self._answer = [*prompt, *answer]
        self._random = random.Random(1)
        self._chance = chance

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        guesses = self._answer[len(tokens) : len(tokens) + count]
        return [9 if self._random.random() < self._chance else guess for guess in guesses]


def run(model: Model, sampling: SamplingSettings, drafter=None, budget=None) -> list[int]:
    settings = GenerationSettings(sampling, max_new_tokens=120)
    model = with_eos(model)
    decoder = Decoder(model.graph, model.manifest.model)
    request = Request(PROMPT, settings, drafter=drafter)
    writer = AnswerWriter(model.tokenizer, model.manifest.model, request)
    pieces = generate(decoder, writer, request, budget)
    return [piece.token_id for piece in pieces]


@pytest.mark.parametrize("chance", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_answer_is_the_same_whatever_the_guesses(tiny_model: Model, name: str, chance: float):
    """Float32 sums of one row and of several differ by 1e-6 of the logits: one token in 10^5."""
    expected = run(tiny_model, SAMPLINGS[name])
    budget = DraftBudget()
    assert run(tiny_model, SAMPLINGS[name], Oracle(expected, chance), budget) == expected
    assert budget.proposed > 0
    if chance == 0:
        assert budget.accepted == budget.proposed > 90
    if chance == 1:
        assert budget.accepted < 10


@pytest.mark.parametrize("name", SAMPLINGS)
def test_prompt_lookup_gives_the_same_answer(tiny_model: Model, name: str):
    expected = run(tiny_model, SAMPLINGS[name])
    assert run(tiny_model, SAMPLINGS[name], PromptLookup()) == expected


def test_fewer_runs_where_the_text_repeats(tiny_model: Model):
    """Greedy answers of a random model repeat themselves here and there."""
    budget = DraftBudget()
    run(tiny_model, SAMPLINGS["greedy"], PromptLookup(), budget)
    assert budget.accepted >= 10


@pytest.mark.parametrize("length", [200, 210, 253, 254, 255, 256])
def test_a_full_context_is_not_overrun_by_guesses(tiny_model: Model, length: int):
    """Right guesses fill the context to its last place; one more would be an error."""
    model = with_eos(tiny_model)
    prompt = ([5, 6, 7] * 90)[:length]
    plain = GenerationSettings(SAMPLINGS["greedy"])
    expected = [piece.token_id for piece in model.generate(prompt, plain)]
    assert length + len(expected) == 256 + 1
    decoder = Decoder(model.graph, model.manifest.model)
    request = Request(prompt, plain, drafter=Oracle(expected, 0.0, prompt))
    writer = AnswerWriter(model.tokenizer, model.manifest.model, request)
    budget = DraftBudget()
    assert [piece.token_id for piece in generate(decoder, writer, request, budget)] == expected
    assert decoder.length == 256
    assert (budget.accepted > 0) == (length < 255)  # the last token of an answer is not read


def test_left_at_any_token_a_session_goes_on_rightly(tiny_model: Model):
    model = with_eos(tiny_model)
    settings = GenerationSettings(SAMPLINGS["greedy"], 60, is_speculative=True)
    whole = [piece.token_id for piece in model.generate(PROMPT, settings)]
    for count in range(60):
        session = model.new_session()
        list(itertools.islice(session.generate(PROMPT, settings), count))
        assert session.tokens == (*PROMPT, *whole)[: len(session.tokens)]
        ids = [*PROMPT, *whole[:count], 3]
        after = [piece.token_id for piece in session.generate(ids, settings)]
        assert after == [piece.token_id for piece in model.generate(ids, settings)]


def naive_lookup(tokens: Sequence[int], count: int) -> list[int]:
    for end in range(len(tokens) - 1, 2, -1):
        if tuple(tokens[end - 3 : end]) == tuple(tokens[-3:]):
            return list(tokens[end : end + count])
    return []


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 9))
def test_lookup_finds_what_followed_last(tokens: list[int], count: int):
    """Asked after every token, or only now and then."""
    drafter, seldom = PromptLookup(), PromptLookup()
    for end in range(len(tokens) + 1):
        expected = naive_lookup(tokens[:end], count)
        assert drafter.propose(tokens[:end], count) == expected
        if end % 7 == 3:
            assert seldom.propose(tokens[:end], count) == expected


@pytest.mark.parametrize("chance", [0.0, 0.05, 0.1])
def test_guessing_costs_little_where_nothing_comes_true(chance: float):
    """At most 5 % of 3,000 tokens' time, at 0.16 of a run for each guessed token."""
    source, budget = random.Random(2), DraftBudget()
    tokens, cost = 0, 0.0
    while tokens < 3000:
        wanted = budget.choose_length()
        tokens, cost = tokens + 1, cost + 1
        if wanted:
            accepted = next((i for i in range(wanted) if source.random() >= chance), wanted)
            budget.record(wanted, accepted)
            tokens, cost = tokens + accepted, cost + 0.16 * wanted
    assert cost < 1.05 * tokens


def test_guessing_grows_where_all_comes_true():
    budget = DraftBudget()
    lengths = []
    for _ in range(6):
        lengths.append(budget.choose_length())
        budget.record(lengths[-1], lengths[-1])
    assert lengths == [2, 4, 8, 16, 16, 16]


def test_guessing_comes_back_when_the_text_begins_to_repeat():
    """After a pause that doubles with every failure, up to 1,024 tokens."""
    budget = DraftBudget()
    for _ in range(5000):
        if wanted := budget.choose_length():
            budget.record(wanted, 0)
    waited = next(i for i in range(2000) if budget.choose_length())
    assert waited <= 1024


def test_a_draft_model_guesses_and_the_answer_is_the_same(tiny_model: Model, tmp_path: Path):
    """The model itself as its draft is always right; another one seldom."""
    other = load(build_tiny_folder(tmp_path / "other", TinyShape(seed=8)), device="cpu")
    settings = GenerationSettings(SAMPLINGS["greedy"], 60, is_speculative=True)
    expected = [
        p.token_id for p in tiny_model.generate(PROMPT, GenerationSettings(SAMPLINGS["greedy"], 60))
    ]
    for draft, is_right in ((tiny_model, True), (other, False)):
        session = tiny_model.new_session(draft)
        assert [piece.token_id for piece in session.generate(PROMPT, settings)] == expected
        budget = session.speculation
        assert budget is not None and budget.proposed > 0
        assert (budget.accepted > 0.9 * budget.proposed) == is_right
        again = [*session.tokens, 3]
        fresh = [piece.token_id for piece in tiny_model.generate(again, settings)]
        assert [piece.token_id for piece in session.generate(again, settings)] == fresh


def test_a_draft_with_another_tokenizer_is_refused(tiny_model: Model, tmp_path: Path):
    folder = build_tiny_folder(tmp_path / "other")
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(text.replace("[gMASK]", "[xMASK]"), encoding="utf-8")
    seal_folder(folder, tiny_model.manifest.model)
    with pytest.raises(FolderError, match=r"the draft tiny has another tokenizer\.json than tiny"):
        tiny_model.new_session(load(folder, device="cpu"))


def test_a_fork_guesses_with_a_cache_of_its_own(tiny_model: Model):
    """In threads: one cache for both gave errors, and each threw the other's tokens away."""
    session = tiny_model.new_session(tiny_model)
    twin = session.fork()
    settings = GenerationSettings(SAMPLINGS["greedy"], 100, is_speculative=True)
    prompts = [[5, 6, 7], [90, 91, 92, 93]]
    expected = [[p.token_id for p in tiny_model.generate(ids, settings)] for ids in prompts]

    def answer(one: Session, ids: list[int]) -> list[list[int]]:
        found = []
        for _ in range(10):
            found.append([piece.token_id for piece in one.generate(ids, settings)])
            one.rewind(0)
        return found

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(answer, [session, twin], prompts))
    assert found == [[one] * 10 for one in expected]
