"""Who gets a row next, and what running answers wait for meanwhile; counted in steps, not time."""

import errno
import mmap
import random

import pytest

from glm_runtime import GenerationSettings, Model, Piece, Request
from glm_runtime.answering.cache_budget import BufferShape
from glm_runtime.answering.events import SchedulerLimits, Started
from glm_runtime.answering.request_queue import MOST_PASSES, Answer, RequestQueue
from glm_runtime.answering.scheduler import Scheduler
from runtime.answering.random_requests import (
    GREEDY,
    answer_alone,
    make_request,
    make_scheduler,
    pieces_of,
    run_to_end,
)

TOKEN_BYTES = 2 * 2 * 2 * 32 * 4  # of the tiny model: layers, keys and values, heads, size, float32


def submit(scheduler: Scheduler, prompt: list[int], count: int) -> int:
    settings = GenerationSettings(GREEDY, count, is_eos_ignored=True)
    return scheduler.submit(scheduler.prepare(Request(prompt, settings)))


def list_started(scheduler: Scheduler) -> list[int]:
    """Run to the end; return the tickets in the order of their first events."""
    return list(run_to_end(scheduler))


def test_small_requests_pass_a_large_one_but_only_some_times(long_model: Model):
    """600 tokens do not fit beside the first answer; they wait for it and for eight others."""
    scheduler = make_scheduler(long_model, SchedulerLimits(2, 64, 1000 * TOKEN_BYTES))
    first = submit(scheduler, [5] * 100, 200)
    scheduler.step()
    large = submit(scheduler, [6] * 600, 5)
    small = [submit(scheduler, [7 + i] * 10, 3) for i in range(12)]
    order = list_started(scheduler)
    assert order == [first, *small[:MOST_PASSES], large, *small[MOST_PASSES:]]


def test_nobody_is_passed_more_often_than_that_also_behind_others(long_model: Model):
    """Two large requests wait; the second one is passed by small ones and never by the first."""
    scheduler = make_scheduler(long_model, SchedulerLimits(3, 64, 1000 * TOKEN_BYTES))
    submit(scheduler, [5] * 100, 150)
    scheduler.step()
    large = [submit(scheduler, [6 + i] * 600, 5) for i in range(2)]
    small = [submit(scheduler, [10 + i] * 10, 3) for i in range(20)]
    order = list_started(scheduler)
    assert order.index(large[1]) == order.index(large[0]) + 1 == MOST_PASSES + 2
    assert [ticket for ticket in order if ticket in small] == small


def test_where_memory_has_no_limit_requests_start_in_their_order(long_model: Model):
    scheduler = make_scheduler(long_model, SchedulerLimits(2, 64))
    source = random.Random(5)
    tickets = [submit(scheduler, [5] * source.randrange(1, 300), 3) for _ in range(20)]
    assert list_started(scheduler) == tickets


def test_a_row_that_was_given_up_waits_in_its_old_place():
    queue = RequestQueue()
    answers = [_make_answer(ticket) for ticket in (3, 5, 9)]
    for answer in answers:
        queue.add(answer)
    given_up = _make_answer(7)
    queue.add(given_up)
    assert [one.ticket for one in queue] == [3, 5, 7, 9] and len(queue) == 4
    assert queue.choose(lambda one: "room" if one is given_up else None) == (given_up, "room")
    queue.admit(given_up)
    assert [one.num_passes for one in answers] == [1, 1, 0] and given_up.num_passes == 0
    answers[1].num_passes = MOST_PASSES
    assert queue.choose(lambda one: 1 if one.ticket == 9 else None) is None
    assert queue.choose(lambda one: 1 if one.ticket == 5 else None) == (answers[1], 1)
    queue.remove(answers[1])
    assert queue.choose(lambda one: 1 if one.ticket == 9 else None) == (answers[2], 1)
    queue.clear()
    assert queue.choose(lambda _: 1) is None


def _make_answer(ticket: int) -> Answer:
    class Writer:
        remaining = 1

    return Answer(Writer(), [5], ticket)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", [16, 64, 200])
def test_running_answers_wait_for_one_chunk_at_most(long_model: Model, chunk: int):
    """Two prompts of 700 tokens arrive together beside six running answers."""
    scheduler = make_scheduler(long_model, SchedulerLimits(8, chunk))
    running = [submit(scheduler, [5 + i] * 20, 400) for i in range(6)]
    while scheduler.statistics.running < 6 or scheduler._open is not None:
        scheduler.step()
    read = scheduler.statistics.prompt_tokens_read
    long = [submit(scheduler, [20 + i] * 700, 5) for i in range(2)]
    since, most = 0, 0
    while scheduler.statistics.prompt_tokens_read < read + 1400:
        before = scheduler.statistics.prompt_tokens_read
        events = scheduler.step()
        since += scheduler.statistics.prompt_tokens_read - before
        most = max(most, since)
        written = [one.ticket for one in events if isinstance(one.event, Piece)]
        if set(running) <= set(written):
            since = 0
    assert 0 < most <= chunk
    assert set(long[1:]) <= set(run_to_end(scheduler))


def test_the_first_of_many_prompts_waits_for_one_chunk_for_its_second_token(long_model: Model):
    """Larger chunks are read only as long as no answer waits for its next token."""
    scheduler = make_scheduler(long_model, SchedulerLimits(8, 16))
    for first in range(6):
        submit(scheduler, [5 + first] * 12, 5)
    scheduler.step()
    assert scheduler.statistics.prompt_tokens_read == 16
    assert [type(one.event) for one in scheduler.step()] == [Piece]


@pytest.mark.parametrize("seed", range(4))
def test_passing_changes_no_answer(long_model: Model, seed: int):
    """Memory for one long or several short requests, which arrive in any order."""
    source = random.Random(seed)
    limits = SchedulerLimits(4, source.choice((16, 64)), 500 * TOKEN_BYTES)
    scheduler = make_scheduler(long_model, limits)
    requests = [make_request(source, source.choice((20, 400))) for _ in range(25)]
    tickets = [scheduler.submit(scheduler.prepare(request)) for request in requests]
    answers = list(scheduler._waiting)
    events = run_to_end(scheduler)
    for ticket, request in zip(tickets, requests, strict=True):
        assert pieces_of(events[ticket]) == answer_alone(long_model, request)
    assert max(answer.num_passes for answer in answers) in range(1, MOST_PASSES + 1)


def test_a_conversation_of_most_of_the_memory_is_kept_whole(long_model: Model):
    """629 of 1,000 tokens do not fit beside a row of them, so the row itself is kept."""
    scheduler = make_scheduler(long_model, SchedulerLimits(4, 64, 1000 * TOKEN_BYTES))
    prompt = [5, 6, 7] * 200
    ticket = submit(scheduler, prompt, 30)
    answer = [one.token_id for one in pieces_of(run_to_end(scheduler)[ticket])]
    assert scheduler.statistics.cache_bytes <= 1000 * TOKEN_BYTES
    turn = [*prompt, *answer, 8, 9]
    ticket = submit(scheduler, turn, 30)
    second = run_to_end(scheduler)[ticket]
    assert second[0] == Started(629)
    assert scheduler.statistics.prompt_tokens_read == 603
    settings = GenerationSettings(GREEDY, 30, is_eos_ignored=True)
    assert pieces_of(second) == answer_alone(long_model, Request(turn, settings))
    edited = [*prompt[:450], 8, 8]
    ticket = submit(scheduler, edited, 30)
    third = run_to_end(scheduler)[ticket]
    assert third[0] == Started(450)
    assert pieces_of(third) == answer_alone(long_model, Request(edited, settings))


def test_a_row_that_was_kept_gives_way_to_another_prompt(long_model: Model):
    scheduler = make_scheduler(long_model, SchedulerLimits(4, 64, 1000 * TOKEN_BYTES))
    long, other = [5, 6, 7] * 250, [9] * 700
    submit(scheduler, long, 3)
    run_to_end(scheduler)
    assert scheduler._cache._parked and scheduler.statistics.row_bytes > 0
    ticket = submit(scheduler, other, 30)
    settings = GenerationSettings(GREEDY, 30, is_eos_ignored=True)
    found = run_to_end(scheduler)[ticket]
    assert found[0] == Started(0)
    assert pieces_of(found) == answer_alone(long_model, Request(other, settings))
    short = submit(scheduler, [8] * 20, 3)
    assert len(pieces_of(run_to_end(scheduler)[short])) == 3
    assert scheduler._cache._parked == () and scheduler.statistics.row_bytes == 0
    scheduler.reset()
    assert scheduler.statistics.cache_bytes == 0


def test_a_long_prompt_that_is_cancelled_is_kept_as_far_as_it_was_read(long_model: Model):
    scheduler = make_scheduler(long_model, SchedulerLimits(1, 64, 1000 * TOKEN_BYTES))
    prompt = [5, 6, 7] * 300
    ticket = submit(scheduler, prompt, 3)
    for _ in range(5):
        scheduler.step()
    assert scheduler.cancel(ticket) and scheduler.is_idle
    ticket = submit(scheduler, prompt, 3)
    assert run_to_end(scheduler)[ticket][0] == Started(640)


def test_rows_that_filled_the_memory_leave_room_for_the_last_prefix(long_model: Model):
    """Buffers of the other rows are freed before the last row is kept."""
    scheduler = make_scheduler(long_model, SchedulerLimits(4, 64, 1100 * TOKEN_BYTES))
    tickets = [submit(scheduler, [5 + i] * 200, count) for i, count in enumerate((60, 60, 60, 62))]
    run_to_end(scheduler)
    assert scheduler.statistics.row_bytes == 0
    again = submit(scheduler, [8] * 200, 3)
    assert tickets and run_to_end(scheduler)[again][0] == Started(199)


def test_without_memory_to_move_the_last_row_it_is_only_lost(
    long_model: Model, monkeypatch: pytest.MonkeyPatch
):
    scheduler = make_scheduler(long_model, SchedulerLimits(4, 64, 1100 * TOKEN_BYTES))
    for i, count in enumerate((60, 60, 60, 62)):
        submit(scheduler, [5 + i] * 200, count)
    while scheduler.statistics.running + scheduler.statistics.waiting > 1:
        scheduler.step()
    assert scheduler._cache._shape == BufferShape(4, 275)
    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", _refuse)
        events = run_to_end(scheduler)
    (last,) = events.values()
    assert isinstance(last[-1], Piece) and last[-1].finish_reason == "length"
    again = submit(scheduler, [8] * 200, 3)
    assert len(pieces_of(run_to_end(scheduler)[again])) == 3


def _refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")
