import dataclasses
import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_runtime import (
    GenerationSettings,
    Model,
    PromptError,
    SamplingSettings,
    Session,
    SessionBusyError,
)
from glm_runtime.graph.decoding import Decoder, count_shared

SETTINGS = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=12)


def tokens_of(pieces) -> list[int]:
    return [piece.token_id for piece in pieces]


def fresh(model: Model, ids: list[int]) -> list[int]:
    return tokens_of(model.generate(ids, SETTINGS))


def test_a_second_turn_over_the_cache_equals_a_fresh_start(tiny_model: Model):
    session = tiny_model.new_session()
    first = tiny_model.tokenizer.encode("床前明月光")
    answer = tokens_of(session.generate(first, SETTINGS))
    second = [*first, *answer, *tiny_model.tokenizer.encode("疑是地上霜")]
    assert tokens_of(session.generate(second, SETTINGS)) == fresh(tiny_model, second)


def record_reads(session: Session) -> list[int]:
    """A list that grows by the number of tokens of each run of the session's graph."""
    read: list[int] = []
    append = session._decoder.append

    def count(tokens, num_logits=1):
        read.append(len(tokens))
        return append(tokens, num_logits)

    session._decoder.append = count
    return read


def test_only_what_is_new_is_read(tiny_model: Model):
    session = tiny_model.new_session()
    ids = tiny_model.tokenizer.encode("In the beginning God created the heaven")
    list(session.generate(ids, SETTINGS))
    read = record_reads(session)
    next(session.generate([*ids, 7, 8], SETTINGS))
    assert read == [2]


def test_the_same_prompt_again_reads_its_last_token_only(tiny_model: Model):
    session = tiny_model.new_session()
    ids = tiny_model.tokenizer.encode("白日依山尽")
    first = tokens_of(session.generate(ids, SETTINGS))
    read = record_reads(session)
    assert tokens_of(session.generate(ids, SETTINGS)) == first
    assert read == [1] * len(first)  # the prompt's last token, then each answer token but the last


@pytest.mark.parametrize("ids", [[], [5, -1], [337], [5] * 257])
def test_a_prompt_that_cannot_be_read_is_refused_before_the_first_piece(
    tiny_model: Model, ids: list[int]
):
    session = tiny_model.new_session()
    first = tokens_of(session.generate([5, 6, 7], SETTINGS))
    kept = session.tokens
    with pytest.raises(PromptError):
        session.generate(ids, SETTINGS)
    assert session.tokens == kept
    assert tokens_of(session.generate([5, 6, 7], SETTINGS)) == first


def test_a_prompt_that_departs_early_equals_a_fresh_start(tiny_model: Model):
    session = tiny_model.new_session()
    list(session.generate([5, 6, 7, 8, 9, 10, 11], SETTINGS))
    for ids in ([5, 6, 200, 8], [5, 6], [44, 6, 7], [44]):
        assert tokens_of(session.generate(ids, SETTINGS)) == fresh(tiny_model, ids)


def test_an_answer_left_half_way_does_not_spoil_the_next(tiny_model: Model):
    session = tiny_model.new_session()
    ids = [5, 6, 7, 8]
    half = session.generate(ids, SETTINGS)
    begun = tokens_of(itertools.islice(half, 4))
    longer = [*ids, *begun[:2], 99, 98]
    assert tokens_of(session.generate(longer, SETTINGS)) == fresh(tiny_model, longer)
    assert list(half) == []  # the old answer has ended; it writes no more into the cache


@pytest.mark.parametrize("action", ["reset", "rewind", "fork", "save", "restore"])
def test_an_unfinished_answer_ends_with_what_changes_the_session(
    tiny_model: Model, tmp_path: Path, action: str
):
    """Its next piece would write into a cache that holds other tokens."""
    session, path = tiny_model.new_session(), tmp_path / "saved.npz"
    list(session.generate([8, 9], SETTINGS))
    session.save(path)
    saved = session.tokens
    half = session.generate([5, 6, 7], SETTINGS)
    begun = tokens_of(itertools.islice(half, 3))
    held = (5, 6, 7, *begun[:2])  # the last token is not read yet
    if action == "reset":
        session.reset()
    elif action == "rewind":
        session.rewind(4)
    elif action == "fork":
        assert session.fork().tokens == held
    elif action == "save":
        session.save(path)
    else:
        session.restore(path)
    assert list(half) == []
    expected = {"reset": (), "rewind": held[:4], "restore": saved}.get(action, held)
    assert session.tokens == expected
    ids = [*expected, 3]
    assert tokens_of(session.generate(ids, SETTINGS)) == fresh(tiny_model, ids)


def test_draft_tokens_are_neither_copied_nor_saved(tiny_model: Model, tmp_path: Path):
    """An answer may be left while the cache holds draft tokens that were not chosen yet."""
    settings = dataclasses.replace(SETTINGS, is_speculative=True)
    drafted = 0
    for count in range(1, 12):
        session, restored = tiny_model.new_session(tiny_model), tiny_model.new_session()
        list(itertools.islice(session.generate([5, 6, 7], settings), count))
        drafted += session._decoder.length > len(session.tokens)
        twin = session.fork()
        session.save(tmp_path / "saved.npz")
        restored.restore(tmp_path / "saved.npz")
        ids = [*session.tokens, 3]
        for one in (session, twin, restored):
            assert one.tokens == tuple(ids[:-1]) and one._decoder.length == len(one.tokens)
            assert tokens_of(one.generate(ids, SETTINGS)) == fresh(tiny_model, ids)
    assert drafted > 0


def test_reset_forgets_everything(tiny_model: Model):
    session = tiny_model.new_session()
    list(session.generate([5, 6, 7], SETTINGS))
    session.reset()
    assert session._decoder.length == 0
    assert tokens_of(session.generate([5, 6, 7], SETTINGS)) == fresh(tiny_model, [5, 6, 7])


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_count_shared_is_the_longest_common_beginning(left: list[int], right: list[int]):
    count = count_shared(left, right)
    assert left[:count] == right[:count]
    assert left[: count + 1] != right[: count + 1] or count == min(len(left), len(right))


def test_a_fork_goes_on_by_itself(tiny_model: Model):
    session = tiny_model.new_session()
    first = tiny_model.tokenizer.encode("床前明月光")
    list(session.generate(first, SETTINGS))
    twin = session.fork()
    assert twin.tokens == session.tokens
    left, right = [*session.tokens, 40, 41], [*session.tokens, 50]
    assert tokens_of(session.generate(left, SETTINGS)) == fresh(tiny_model, left)
    assert tokens_of(twin.generate(right, SETTINGS)) == fresh(tiny_model, right)
    assert tokens_of(session.generate([*left, 9], SETTINGS)) == fresh(tiny_model, [*left, 9])


def test_a_fork_of_nothing_is_a_new_session(tiny_model: Model):
    twin = tiny_model.new_session().fork()
    assert twin.tokens == ()
    assert tokens_of(twin.generate([5, 6], SETTINGS)) == fresh(tiny_model, [5, 6])


def test_rewinding_forgets_what_comes_after(tiny_model: Model):
    session = tiny_model.new_session()
    list(session.generate([5, 6, 7, 8], SETTINGS))
    session.rewind(3)
    assert session.tokens == (5, 6, 7)
    assert tokens_of(session.generate([5, 6, 7, 9], SETTINGS)) == fresh(tiny_model, [5, 6, 7, 9])


@pytest.mark.parametrize("length", [-1, 4])
def test_rewinding_to_where_nothing_is_is_refused(tiny_model: Model, length: int):
    session = tiny_model.new_session()
    next(session.generate([5, 6, 7], SETTINGS))
    with pytest.raises(PromptError, match=f"rewind to {length} tokens was requested but .* 3;"):
        session.rewind(length)


def test_an_answer_can_be_interrupted_at_any_token(tiny_model: Model):
    ids = [5, 6, 7, 8]
    whole = fresh(tiny_model, ids)
    for count in range(len(whole) + 1):
        session = tiny_model.new_session()
        begun = tokens_of(itertools.islice(session.generate(ids, SETTINGS), count))
        again = [*ids, *begun]
        rest = GenerationSettings(SETTINGS.sampling, max_new_tokens=12 - count or 1)
        assert tokens_of(session.generate(again, rest))[: 12 - count] == whole[count:]


def test_two_sessions_in_threads_answer_as_each_alone(tiny_model: Model):
    prompts = [[5, 6, 7], [90, 91], [7] * 40, [200, 3, 1]]
    expected = [fresh(tiny_model, ids) for ids in prompts]

    def answer_often(ids: list[int]) -> list[list[int]]:
        session = tiny_model.new_session()
        answers = []
        for _ in range(20):
            answers.append(tokens_of(session.generate(ids, SETTINGS)))
            session.rewind(1)
        return answers

    with ThreadPoolExecutor(len(prompts)) as pool:
        found = list(pool.map(answer_often, prompts))
    assert found == [[one] * 20 for one in expected]


class RandomUser:
    """Does anything a session allows; every answer is compared with one from nothing."""

    def __init__(self, model: Model, folder: Path) -> None:
        self._model = model
        self._path = folder / "saved.npz"
        self._random = random.Random(4)
        self._sessions = [model.new_session()]
        self._expected: dict[tuple[int, ...], list[int]] = {}

    def act(self) -> None:
        place = self._random.randrange(len(self._sessions))
        session = self._sessions[place]
        kind = self._random.choice(["ask"] * 6 + ["leave", "rewind", "fork", "save", "reset"])
        if kind in ("ask", "leave"):
            self._ask(session, is_left=kind == "leave")
        elif kind == "rewind":
            session.rewind(self._random.randint(0, len(session.tokens)))
        elif kind == "fork":
            self._sessions = [session.fork(), *self._sessions][:3]
        elif kind == "save":
            session.save(self._path)
            self._sessions[place] = self._model.new_session()
            self._sessions[place].restore(self._path)
            assert self._sessions[place].tokens == session.tokens
        else:
            session.reset()

    def _ask(self, session: Session, *, is_left: bool) -> None:
        kept = self._random.randint(0, min(len(session.tokens), 24))
        new = [self._random.randrange(8) for _ in range(self._random.randint(1, 3))]
        ids = (*session.tokens[:kept], *new)
        count = self._random.randint(0, 5) if is_left else 5
        settings = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=5)
        found = tokens_of(itertools.islice(session.generate(ids, settings), count))
        if ids not in self._expected:
            self._expected[ids] = tokens_of(self._model.generate(list(ids), settings))
        assert found == self._expected[ids][:count]


def test_ten_thousand_random_turns_are_those_of_stateless_runs(tiny_model: Model, tmp_path: Path):
    """One seed, so no false alarm by chance; a cache wrong by one token turns a greedy answer in
    about every second turn."""
    user = RandomUser(tiny_model, tmp_path)
    for _ in range(10_000):
        user.act()


@pytest.mark.parametrize("begin", ["generate", "reset", "rewind", "fork"])
def test_a_session_in_another_thread_is_refused_in_a_sentence(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch, begin: str
):
    """It was a bare ValueError of Python, "generator already executing"."""
    session = tiny_model.new_session()
    prompt = tiny_model.tokenizer.encode("a b c")
    reached, released = threading.Event(), threading.Event()
    append = Decoder.append

    def wait(*values: Any, **named: Any) -> Any:
        reached.set()
        assert released.wait(60)
        return append(*values, **named)

    monkeypatch.setattr(Decoder, "append", wait)
    other = threading.Thread(target=lambda: list(session.generate(prompt, max_new_tokens=1)))
    other.start()
    assert reached.wait(60)
    calls = {
        "generate": lambda: session.generate(prompt),
        "reset": session.reset,
        "rewind": lambda: session.rewind(0),
        "fork": session.fork,
    }
    with pytest.raises(SessionBusyError, match="give each thread a session of its own"):
        calls[begin]()
    released.set()
    other.join()
    assert len(session.tokens) >= len(prompt)
