"""The engine with many threads: every request has exactly one last event, whatever happens."""

import functools
import queue
import random
import threading
import time
from collections.abc import Iterator

import pytest

from glm_runtime import GenerationSettings, Grammar, Model, Piece, PromptError, Request
from glm_runtime.answering.engine import Engine, Ticket
from glm_runtime.answering.events import Event, SchedulerLimits, Started, is_last
from glm_runtime.errors import (
    AnswerCancelledError,
    EngineClosedError,
    GenerationError,
    QueueFullError,
    SamplingError,
)
from runtime.answering.random_requests import GREEDY, answer_alone, make_request, pieces_of

HANG_SECONDS = 120  # a busy machine is slow, but not that slow
ENDLESS = GenerationSettings(GREEDY, 1500, is_eos_ignored=True)


class Listener:
    """Collects the events of one request."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._queue: queue.Queue[Event] = queue.Queue()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._queue.put(event)

    def next(self) -> Event:
        return self._queue.get(timeout=HANG_SECONDS)

    def wait(self) -> list[Event]:
        while not is_last(self.next()):
            pass
        return self.events


@pytest.fixture
def engine(long_model: Model) -> Iterator[Engine]:
    engine = Engine(long_model, SchedulerLimits(4, 64, 10**7, max_waiting=1000))
    yield engine
    engine.close()


def ask(engine: Engine, request: Request) -> tuple[Listener, Ticket]:
    listener = Listener()
    return listener, engine.submit(request, listener)


def test_many_threads_get_the_answers_of_single_runs(long_model: Model, engine: Engine):
    """Each thread asks, and sometimes cancels after some pieces."""
    outcomes: list[tuple[Request, list[Event], bool]] = []

    def use(seed: int) -> None:
        source = random.Random(seed)
        for _ in range(6):
            request = make_request(source, 200)
            listener, ticket = ask(engine, request)
            is_cancelled = source.random() < 0.3
            if is_cancelled:
                time.sleep(source.random() / 50)
                ticket.cancel()
            outcomes.append((request, listener.wait(), is_cancelled))

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()
    assert len(outcomes) == 36
    for request, events, is_cancelled in outcomes:
        assert sum(map(is_last, events)) == 1
        expected = answer_alone(long_model, request)
        if isinstance(events[-1], Piece):
            assert pieces_of(events) == expected
        else:
            assert is_cancelled and isinstance(events[-1], AnswerCancelledError)
            found = [event for event in events if isinstance(event, Piece)]
            assert found == expected[: len(found)]
    statistics = engine.statistics
    assert statistics.running == statistics.waiting == 0
    assert statistics.generated_tokens == sum(
        isinstance(event, Piece) for _, events, _ in outcomes for event in events
    )


def test_a_cancel_ends_an_answer_at_once(engine: Engine):
    listener, ticket = ask(engine, Request([5, 6], ENDLESS))
    assert listener.next() == Started(0)
    for _ in range(3):
        assert isinstance(listener.next(), Piece)
    ticket.cancel()
    ticket.cancel()
    assert isinstance(listener.wait()[-1], AnswerCancelledError)
    assert len(listener.events) < 1000
    after, _ = ask(engine, Request([5, 6], GenerationSettings(GREEDY, 2)))
    after.wait()
    ticket.cancel()
    assert sum(map(is_last, listener.events)) == 1


def test_beyond_the_queue_requests_are_refused(long_model: Model):
    engine = Engine(long_model, SchedulerLimits(1, 64, max_waiting=1))
    first, ticket = ask(engine, Request([5], ENDLESS))
    second, _ = ask(engine, Request([6], GenerationSettings(GREEDY, 1)))
    sentence = "2 requests are running or waiting where 2 are allowed; try again later"
    with pytest.raises(QueueFullError, match=sentence):
        engine.submit(Request([7]), Listener())
    ticket.cancel()
    first.wait()
    second.wait()
    third, _ = ask(engine, Request([7], GenerationSettings(GREEDY, 1)))
    assert isinstance(third.wait()[-1], Piece)
    engine.close()


def test_requests_that_belong_together_are_taken_whole_or_not(long_model: Model):
    engine = Engine(long_model, SchedulerLimits(2, 64, max_waiting=1))
    running, ticket = ask(engine, Request([5], ENDLESS))
    short = GenerationSettings(GREEDY, 1)
    with pytest.raises(QueueFullError, match="1 requests are running or waiting where 3 are"):
        engine.submit_all([(Request([6 + i], short), Listener()) for i in range(3)])
    with pytest.raises(SamplingError, match="4 answers are asked for at once where 3 can run"):
        engine.submit_all([(Request([6 + i], short), Listener()) for i in range(4)])
    with pytest.raises(PromptError, match="the prompt is empty"):
        engine.submit_all([(Request([6], short), Listener()), (Request([], short), Listener())])
    assert engine.statistics.waiting + engine.statistics.running == 1
    listeners = [Listener(), Listener()]
    engine.submit_all([(Request([6], short), one) for one in listeners])
    for listener in listeners:
        assert isinstance(listener.wait()[-1], Piece)
    ticket.cancel()
    running.wait()
    engine.close()


def test_requests_that_belong_together_start_in_the_same_step(long_model: Model):
    """Then the sizes of all runs are the same each time, and so is every bit of the answers."""
    engine = Engine(long_model, SchedulerLimits(4, 64))
    order: list[tuple[int, Event]] = []
    done = threading.Event()

    def take(index: int, event: Event) -> None:
        order.append((index, event))
        if sum(is_last(found) for _, found in order) == 4:
            done.set()

    for _ in range(20):
        order.clear()
        done.clear()
        settings = GenerationSettings(GREEDY, 2, is_eos_ignored=True)
        engine.submit_all(
            [(Request([5, i], settings), functools.partial(take, i)) for i in range(4)]
        )
        assert done.wait(HANG_SECONDS)
        pieces = [index for index, event in order if isinstance(event, Piece)]
        assert pieces == [0, 1, 2, 3, 0, 1, 2, 3]
    engine.close()


def test_a_wrong_request_is_refused_before_it_is_queued(engine: Engine):
    with pytest.raises(PromptError, match="the prompt is empty"):
        engine.submit(Request([]), Listener())
    assert engine.statistics.waiting == 0


def test_a_closed_engine_lets_answers_end_within_the_grace(long_model: Model):
    engine = Engine(long_model, SchedulerLimits(1))
    listeners = [ask(engine, Request([5, i], GenerationSettings(GREEDY, 20)))[0] for i in range(3)]
    engine.close(grace_seconds=HANG_SECONDS)
    assert all(isinstance(one.events[-1], Piece) for one in listeners)
    with pytest.raises(EngineClosedError, match="the engine is closed"):
        engine.submit(Request([5]), Listener())
    engine.close()


def test_without_grace_every_answer_is_cancelled_once(long_model: Model):
    engine = Engine(long_model, SchedulerLimits(1))
    listeners = [ask(engine, Request([5, i], ENDLESS))[0] for i in range(3)]
    listeners[0].next()
    engine.close()
    for one in listeners:
        assert isinstance(one.events[-1], AnswerCancelledError)
        assert sum(map(is_last, one.events)) == 1
    assert "closed before the answer was complete" in str(listeners[2].events[-1])


def test_a_listener_that_fails_loses_its_answer_alone(long_model: Model, engine: Engine):
    def fail(event: Event) -> None:
        if event != Started(0):
            raise ValueError("the listener is broken")

    engine.submit(Request([5, 6], ENDLESS), fail)
    request = Request([7, 8], GenerationSettings(GREEDY, 30))
    listener, _ = ask(engine, request)
    assert pieces_of(listener.wait()) == answer_alone(long_model, request)
    assert engine.statistics.waiting == 0


def test_a_fault_in_a_step_ends_the_answers_and_the_engine_goes_on(
    long_model: Model, engine: Engine
):
    listener, _ = ask(engine, Request([5, 6], ENDLESS))
    listener.next()
    engine._scheduler._running = None  # type: ignore[assignment]
    assert isinstance(listener.wait()[-1], GenerationError)
    request = Request([5, 6], GenerationSettings(GREEDY, 3))
    after, _ = ask(engine, request)
    assert pieces_of(after.wait()) == answer_alone(long_model, request)


def test_an_engine_cannot_be_closed_from_its_own_event(long_model: Model, engine: Engine):
    found: queue.Queue[BaseException] = queue.Queue()

    def close(_: Event) -> None:
        try:
            engine.close()
        except GenerationError as error:
            found.put(error)

    engine.submit(Request([5], GenerationSettings(GREEDY, 1)), close)
    assert "from one of its own events" in str(found.get(timeout=HANG_SECONDS))


def test_an_idle_engine_sleeps(long_model: Model, engine: Engine):
    """The thread's processor time stands still while nothing is asked."""
    listener, _ = ask(engine, Request([5], GenerationSettings(GREEDY, 3)))
    listener.wait()
    with engine._changed:
        pass
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.4


def test_grammars_compiled_in_many_threads_leave_the_stack_size_alone(engine: Engine):
    """The size of new stacks is a setting of the process, which a grammar changes for a moment."""
    settings = GenerationSettings(GREEDY, 9, grammar=Grammar("regex", "[a-f]{9}"))
    before = threading.stack_size()
    listeners: list[Listener] = []

    def use() -> None:
        for _ in range(10):
            listeners.append(ask(engine, Request([5, 6], settings))[0])

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for listener in listeners:
        listener.wait()
    assert threading.stack_size() == before
