"""Whatever else runs, each answer is the one that its prompt gets alone."""

import dataclasses
import errno
import mmap
import random

import numpy as np
import pytest

from glm_runtime import GenerationError, GenerationSettings, Model, Piece, PromptError, Request
from glm_runtime.answering.batch_decoder import BatchDecoder
from glm_runtime.answering.cache_budget import CacheBudget
from glm_runtime.answering.events import SchedulerLimits, Started
from glm_runtime.answering.scheduler import Scheduler
from runtime.answering.random_requests import (
    GREEDY,
    answer_alone,
    make_request,
    make_scheduler,
    pieces_of,
    run_to_end,
)


def measure_token(model: Model) -> int:
    return CacheBudget(model.manifest.model, 1, None).token_bytes


def count_bytes(scheduler: Scheduler) -> int:
    """Bytes of all arrays of keys and values, counted without the scheduler's own sums."""
    cache = scheduler._cache
    assert isinstance(cache.rows, BatchDecoder)
    nodes = [node.values for node in cache._tree._by_use if node.values is not None]
    return sum(array.nbytes for array in (*cache.rows._buffers.values(), *nodes))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("memory", [None, 450, 900, 4000])
def test_answers_are_those_of_single_runs(long_model: Model, memory: int | None, seed: int):
    """Random arrivals and cancels; 450 tokens of memory are less than two rows often need.

    Float32 sums of several rows differ by 1e-6 of the logits: one token in 10^5.
    """
    source = random.Random(seed)
    limit = None if memory is None else memory * measure_token(long_model)
    limits = SchedulerLimits(source.choice((1, 2, 3, 8)), source.choice((16, 100, 128)), limit)
    scheduler = make_scheduler(long_model, limits)
    requests: dict[int, Request] = {}
    events: dict[int, list[object]] = {}
    cancelled: set[int] = set()
    for _ in range(25):
        request = make_request(source, 300)
        ticket = scheduler.submit(scheduler.prepare(request))
        requests[ticket], events[ticket] = request, []
        for _ in range(source.choice((0, 0, 1, 9))):
            for one in scheduler.step():
                events[one.ticket].append(one.event)
            assert limit is None or count_bytes(scheduler) <= limit
        if source.random() < 0.2:
            victim = source.choice(list(requests))
            if scheduler.cancel(victim):
                cancelled.add(victim)
    for ticket, rest in run_to_end(scheduler).items():
        assert ticket not in cancelled
        events[ticket].extend(rest)
    for ticket, request in requests.items():
        expected = answer_alone(long_model, request)
        found = [event for event in events[ticket] if isinstance(event, Piece)]
        if ticket in cancelled:
            assert found == expected[: len(found)]
        else:
            assert pieces_of(events[ticket]) == expected, ticket  # type: ignore[arg-type]
    assert_nothing_left(scheduler)


def assert_nothing_left(scheduler: Scheduler) -> None:
    statistics = scheduler.statistics
    assert scheduler.is_idle and statistics.running == statistics.waiting == 0
    assert scheduler._rows.lengths == []
    assert scheduler._cache._parked or scheduler._rows.open_length is None


def test_rows_that_grow_preempt_the_newest_and_no_answer_changes(long_model: Model):
    """Three answers of up to 300 tokens in memory for 600: the newest wait and go on later."""
    limits = SchedulerLimits(3, 128, 600 * measure_token(long_model))
    model = dataclasses.replace(long_model)
    scheduler = make_scheduler(model, limits)
    settings = GenerationSettings(GREEDY, 400, is_eos_ignored=True)
    requests = [Request([5 + i, 6, 7], settings) for i in range(3)]
    tickets = [scheduler.submit(scheduler.prepare(request)) for request in requests]
    events = run_to_end(scheduler)
    for ticket, request in zip(tickets, requests, strict=True):
        assert pieces_of(events[ticket]) == answer_alone(model, request)
    assert scheduler.statistics.preemptions > 0
    assert_nothing_left(scheduler)


def test_an_answer_ends_where_memory_ends(long_model: Model):
    limits = SchedulerLimits(2, 128, 100 * measure_token(long_model))
    scheduler = make_scheduler(long_model, limits)
    request = Request([5] * 40, GenerationSettings(GREEDY, 500, is_eos_ignored=True))
    ticket = scheduler.submit(scheduler.prepare(request))
    pieces = pieces_of(run_to_end(scheduler)[ticket])
    assert pieces[-1].finish_reason == "length" and len(pieces) == 61
    alone = answer_alone(long_model, request)
    assert [one.token_id for one in pieces] == [one.token_id for one in alone[:61]]
    sentence = r"has 101 tokens, which need 0\.00 GB .* holds 100 tokens; shorten the prompt, or"
    with pytest.raises(PromptError, match=sentence):
        scheduler.prepare(Request([5] * 101))


def test_a_long_prompt_is_read_between_the_tokens_of_others(long_model: Model):
    """1,500 tokens in chunks of 100: after every chunk the running answers get a token each."""
    scheduler = make_scheduler(long_model, SchedulerLimits(4, 100))
    settings = GenerationSettings(GREEDY, 200, is_eos_ignored=True)
    short = [scheduler.submit(scheduler.prepare(Request([5 + i], settings))) for i in range(2)]
    scheduler.step()
    long = scheduler.submit(scheduler.prepare(Request([9] * 1500, settings)))
    read, pieces_between = scheduler.statistics.prompt_tokens_read, 0
    gaps = []
    while scheduler.statistics.prompt_tokens_read < read + 1500:
        before = scheduler.statistics.prompt_tokens_read
        events = scheduler.step()
        chunk = scheduler.statistics.prompt_tokens_read - before
        assert chunk <= 100
        if chunk:
            gaps.append(pieces_between)
            pieces_between = 0
        pieces_between += sum(one.ticket in short for one in events)
    assert len(gaps) == 15 and set(gaps[1:]) == {2}
    events = run_to_end(scheduler)
    assert {one.finish_reason for one in events[long] if isinstance(one, Piece)} >= {"length"}


def test_growing_buffers_take_a_turn_of_their_own(long_model: Model):
    """Running answers wait for rows that are moved, or for a chunk, but never for both."""
    scheduler = make_scheduler(long_model, SchedulerLimits(4, 100))
    settings = GenerationSettings(GREEDY, 200, is_eos_ignored=True)
    scheduler.submit(scheduler.prepare(Request([5], settings)))
    scheduler.step()
    scheduler.step()
    scheduler.submit(scheduler.prepare(Request([9] * 1500, settings)))
    seen = []
    for _ in range(4):
        before, capacity = scheduler.statistics, scheduler._cache.rows.capacity
        scheduler.step()
        after = scheduler.statistics
        is_moved = scheduler._cache.rows.capacity > capacity
        read = after.prompt_tokens_read - before.prompt_tokens_read
        seen.append((is_moved, read, after.generated_tokens - before.generated_tokens))
    assert seen == [(True, 0, 0), (False, 0, 1), (False, 100, 0), (False, 0, 1)]


def test_one_chunk_reads_several_short_prompts_in_the_order_of_arrival(long_model: Model):
    scheduler = make_scheduler(long_model, SchedulerLimits(8, 100))
    settings = GenerationSettings(GREEDY, 30, is_eos_ignored=True)
    scheduler.submit(scheduler.prepare(Request([4], settings)))
    scheduler.step()
    scheduler.step()
    for first in range(5):
        scheduler.submit(scheduler.prepare(Request([first + 5] * 30, settings)))
    read_step = [one.ticket for one in scheduler.step() if isinstance(one.event, Piece)]
    assert read_step == [1, 2, 3]
    assert scheduler.statistics.prompt_tokens_read == 1 + 90


def test_a_second_turn_reads_only_its_new_tokens(long_model: Model):
    limits = SchedulerLimits(2, 128, 4000 * measure_token(long_model))
    scheduler = make_scheduler(long_model, limits)
    settings = GenerationSettings(GREEDY, 30, is_eos_ignored=True)
    prompt = [5, 6, 7] * 100
    ticket = scheduler.submit(scheduler.prepare(Request(prompt, settings)))
    first = run_to_end(scheduler)[ticket]
    assert first[0] == Started(0)
    answer = [one.token_id for one in pieces_of(first)]
    turn = [*prompt, *answer, 8, 9]
    ticket = scheduler.submit(scheduler.prepare(Request(turn, settings)))
    second = run_to_end(scheduler)[ticket]
    # The graph never read the last token of the answer.
    assert second[0] == Started(len(prompt) + 29)
    assert scheduler.statistics.prompt_tokens_read == len(prompt) + 3
    assert pieces_of(second) == answer_alone(long_model, Request(turn, settings))
    ticket = scheduler.submit(scheduler.prepare(Request(prompt, settings)))
    assert run_to_end(scheduler)[ticket][0] == Started(len(prompt) - 1)


def test_completions_at_the_same_time_share_one_prompt(long_model: Model):
    scheduler = make_scheduler(long_model, SchedulerLimits(4, 128))
    request = Request([5, 6] * 200, GenerationSettings(GREEDY, 5))
    tickets = [scheduler.submit(scheduler.prepare(request)) for _ in range(4)]
    events = run_to_end(scheduler)
    assert [events[ticket][0] for ticket in tickets] == [Started(0), *[Started(399)] * 3]
    assert scheduler.statistics.prompt_tokens_read == 400 + 3


def test_cancelled_while_it_waits_is_read_or_runs(long_model: Model):
    scheduler = make_scheduler(long_model, SchedulerLimits(2, 50))
    settings = GenerationSettings(GREEDY, 50, is_eos_ignored=True)
    running, reading, waiting, last = (
        scheduler.submit(scheduler.prepare(Request([5 + i] * length, settings)))
        for i, length in enumerate((10, 300, 10, 10))
    )
    for _ in range(4):
        scheduler.step()
    assert scheduler._open is not None and scheduler._open.ticket == reading
    for ticket in (waiting, reading, running):
        assert scheduler.cancel(ticket)
        assert not scheduler.cancel(ticket)
    events = run_to_end(scheduler)
    assert list(events) == [last] and len(pieces_of(events[last])) == 50
    assert_nothing_left(scheduler)


def test_a_failure_of_the_machine_ends_what_takes_part_and_nothing_else(
    long_model: Model, monkeypatch: pytest.MonkeyPatch
):
    """A token outside the vocabulary makes ONNX Runtime itself fail in the step."""
    scheduler = make_scheduler(long_model, SchedulerLimits(2, 128))
    settings = GenerationSettings(GREEDY, 5, is_eos_ignored=True)
    requests = [Request([5 + i] * 10, settings) for i in range(4)]
    tickets = [scheduler.submit(scheduler.prepare(request)) for request in requests]
    scheduler.step()
    scheduler._running[0].tokens[-1] = 10**6
    failed = scheduler.step()
    assert [one.ticket for one in failed] == tickets[:2]
    assert all(isinstance(one.event, GenerationError) for one in failed)
    events = run_to_end(scheduler)
    for ticket, request in zip(tickets[2:], requests[2:], strict=True):
        assert pieces_of(events[ticket]) == answer_alone(long_model, request)


def test_logits_that_are_not_numbers_end_their_answer_alone(
    long_model: Model, monkeypatch: pytest.MonkeyPatch
):
    scheduler = make_scheduler(long_model, SchedulerLimits(2, 128))
    requests = [Request([5 + i] * 10, GenerationSettings(GREEDY, 5)) for i in range(2)]
    first, second = (scheduler.submit(scheduler.prepare(request)) for request in requests)
    step = BatchDecoder.step

    def spoil(decoder: BatchDecoder, tokens: list[int]) -> object:
        logits = step(decoder, tokens)
        logits[0] = np.nan
        return logits

    monkeypatch.setattr(BatchDecoder, "step", spoil)
    scheduler.step()
    scheduler.step()
    monkeypatch.undo()
    events = run_to_end(scheduler)
    assert first not in events
    assert events[second][-1] == answer_alone(long_model, requests[1])[-1]


def test_without_memory_for_the_rows_all_of_them_fail(
    long_model: Model, monkeypatch: pytest.MonkeyPatch
):
    scheduler = make_scheduler(long_model, SchedulerLimits(2, 128))
    ticket = scheduler.submit(scheduler.prepare(Request([5] * 10)))
    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", _refuse)
        events = run_to_end(scheduler)
    assert isinstance(events[ticket][-1], GenerationError)
    assert "memory for 2 rows of 512 tokens is not available" in str(events[ticket][-1])
    request = Request([5] * 10, GenerationSettings(GREEDY, 5))
    ticket = scheduler.submit(scheduler.prepare(request))
    assert pieces_of(run_to_end(scheduler)[ticket]) == answer_alone(long_model, request)


def _refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def test_memory_is_given_back_when_nothing_runs(long_model: Model):
    limits = SchedulerLimits(4, 128, 4000 * measure_token(long_model))
    scheduler = make_scheduler(long_model, limits)
    ticket = scheduler.submit(scheduler.prepare(Request([5] * 500, GenerationSettings(GREEDY, 5))))
    scheduler.step()
    assert scheduler.statistics.row_bytes > 0
    run_to_end(scheduler)
    statistics = scheduler.statistics
    assert statistics.row_bytes == 0 and statistics.prefix_bytes >= 500 * measure_token(long_model)
    assert ticket == 0 and statistics.cache_bytes == statistics.prefix_bytes


def test_on_other_devices_one_request_at_a_time(long_model: Model):
    """The graph runs on the CPU here; only its description names another device."""
    graph = dataclasses.replace(long_model.graph, device="dml")
    model = dataclasses.replace(long_model, graph=graph)
    limits = SchedulerLimits(4, 16, 4000 * measure_token(long_model))
    scheduler = make_scheduler(model, limits)
    source = random.Random(3)
    requests = [make_request(source) for _ in range(12)]
    tickets = [scheduler.submit(scheduler.prepare(request)) for request in requests]
    most = 0
    events: dict[int, list[object]] = {ticket: [] for ticket in tickets}
    while not scheduler.is_idle:
        for one in scheduler.step():
            events[one.ticket].append(one.event)
        most = max(most, scheduler.statistics.running)
    assert most == 1
    for ticket, request in zip(tickets, requests, strict=True):
        expected = answer_alone(long_model, request)
        assert pieces_of(events[ticket]) == expected  # type: ignore[arg-type]
    assert scheduler.statistics.prompt_tokens_cached > 0


def test_no_row_is_lost_after_500_requests(tiny_model: Model):
    source = random.Random(1)
    limits = SchedulerLimits(3, 64, 2000 * measure_token(tiny_model))
    scheduler = make_scheduler(tiny_model, limits)
    live: set[int] = set()
    for _ in range(500):
        request = make_request(source, 100)
        short = dataclasses.replace(request.settings, max_new_tokens=source.randrange(1, 6))
        live.add(scheduler.submit(scheduler.prepare(dataclasses.replace(request, settings=short))))
        for _ in range(source.randrange(3)):
            scheduler.step()
        if source.random() < 0.3:
            scheduler.cancel(source.choice(sorted(live)))
    run_to_end(scheduler)
    assert_nothing_left(scheduler)
    assert count_bytes(scheduler) == scheduler.statistics.prefix_bytes
