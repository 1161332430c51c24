"""Answers requests of many threads: a scheduler in a thread of its own.

    engine = Engine(model, SchedulerLimits(context_bytes=4 * 10**9))
    ticket = engine.submit(request, print)
    ticket.cancel()
    engine.close(grace_seconds=5)

Read `scheduler.py` for how requests are answered together.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from glm_runtime.answering.events import EngineStatistics, Event, SchedulerLimits, is_last
from glm_runtime.answering.generation import Request
from glm_runtime.answering.loaded_model import LoadedModel
from glm_runtime.answering.prefix_files import PrefixFiles
from glm_runtime.answering.request_queue import Answer
from glm_runtime.answering.scheduler import Scheduler
from glm_runtime.errors import (
    AnswerCancelledError,
    EngineClosedError,
    GenerationError,
    GlmRuntimeError,
    QueueFullError,
    SamplingError,
    first_line,
)
from glm_runtime.graph.machine import give_back_memory

_LOGGER = logging.getLogger(__name__)
_PAUSE_SECONDS = 2.0  # without a request, before memory is given back
OnEvent = Callable[[Event], None]


@dataclass(eq=False)
class Ticket:
    """A request that an engine has taken."""

    _engine: "Engine"
    _answer: Answer
    _on_event: OnEvent
    _has_ended: bool = False

    def cancel(self) -> None:
        """End the answer before its next step; any thread may call this, at any time.

        If the answer has not ended by then, its last event is an `AnswerCancelledError`.
        """
        self._engine._cancel(self)


class Engine:
    """Answers requests, many at the same time. Any thread may use it."""

    def __init__(
        self, model: LoadedModel, limits: SchedulerLimits, files: PrefixFiles | None = None
    ) -> None:
        """Start the thread, which sleeps as long as there is nothing to do.

        Args:
            model: the model that answers.
            limits: how much is done at the same time.
            files: keeps prefixes on disk, if the limits have `context_bytes`; `close` closes them.
        """
        self._files = files
        self._scheduler = Scheduler(
            model.graph,
            model.manifest.model,
            model.tokenizer,
            model.default_settings,
            limits,
            files,
        )
        self._most = self._scheduler.max_rows + limits.max_waiting
        self._changed = threading.Condition()
        # The condition protects what follows. Only the thread uses the scheduler's other methods.
        self._submitted: deque[Ticket] = deque()
        self._cancelled: deque[Ticket] = deque()
        self._num_live = 0
        self._is_closed = False
        self._is_aborted = False
        self._statistics = EngineStatistics()
        self._tickets: dict[int, Ticket] = {}  # only the thread uses it
        self._thread = threading.Thread(target=self._run, name="glm_runtime engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, on_event: OnEvent) -> Ticket:
        """Queue a request, after its check in the caller's thread.

        Args:
            request: the prompt and its settings. A grammar is compiled here, which can take a
                second.
            on_event: called in the engine's thread with every event: `Started`, then each `Piece`.
                The last event is a piece with a finish reason, or an error. It must return at
                once, since all answers wait for it.

        Raises:
            QueueFullError: as many requests wait as the limits allow.
            EngineClosedError: the engine was closed.
            PromptError: the prompt is empty, does not fit, or holds an id that is no token.
            SamplingError: a bias names an id that is no token.
            GrammarError: the grammar is not valid.
            MissingDependencyError: a grammar is given and llguidance is not installed.
        """
        return self.submit_all([(request, on_event)])[0]

    def submit_all(self, requests: Sequence[tuple[Request, OnEvent]]) -> list[Ticket]:
        """Queue requests that belong together, all of them or none.

        They arrive at once, so an idle engine always runs them in the same steps, and the same
        seeds give the same answers again.

        Args:
            requests: each request, and what is called with its events, as in `submit`.

        Raises:
            SamplingError: more are given than can ever wait together, or one has a wrong setting.
            GlmRuntimeError: one is refused, as in `submit`.
        """
        if len(requests) > self._most:
            raise SamplingError(
                f"{len(requests)} answers are asked for at once where {self._most} can run or "
                "wait; ask for fewer, or allow more to wait."
            )
        self._require_places(len(requests))
        tickets = [Ticket(self, self._scheduler.prepare(one), listen) for one, listen in requests]
        with self._changed:
            self._require_places(len(tickets))
            self._num_live += len(tickets)
            self._submitted.extend(tickets)
            self._changed.notify()
        return tickets

    @property
    def statistics(self) -> EngineStatistics:
        """What the engine is doing and has done, as of its last step."""
        with self._changed:
            waiting = self._num_live - self._statistics.running
            return replace(self._statistics, waiting=max(waiting, 0))

    def close(self, grace_seconds: float = 0.0) -> None:
        """Refuse new requests, let the others end within some seconds, then cancel them.

        On return every request has had its last event and the thread has ended.

        Raises:
            GenerationError: it is called from an event of this engine.
        """
        if threading.current_thread() is self._thread:
            raise GenerationError(
                "an engine is closed from one of its own events, which it would wait for without "
                "end; close it from another thread."
            )
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(grace_seconds)
        with self._changed:
            self._is_aborted = True
        self._thread.join()
        if self._files is not None:
            self._files.close()

    def _require_places(self, count: int) -> None:
        if self._is_closed:
            raise EngineClosedError(
                "the engine is closed and takes no requests; load the model again."
            )
        if self._num_live + count > self._most:
            raise QueueFullError(
                f"{self._num_live} requests are running or waiting where {self._most} are allowed; "
                "try again later, or allow more to wait."
            )

    def _cancel(self, ticket: Ticket) -> None:
        with self._changed:
            self._cancelled.append(ticket)
            self._changed.notify()

    def _run(self) -> None:
        try:
            while self._take_orders():
                self._step()
        finally:
            self._end_all()

    def _take_orders(self) -> bool:
        """Wait for something to do; return False at the end."""
        self._wait()
        with self._changed:
            if self._is_aborted or (self._is_closed and not self._num_live):
                return False
            submitted, cancelled = list(self._submitted), list(self._cancelled)
            self._submitted.clear()
            self._cancelled.clear()
        for ticket in submitted:
            self._tickets[self._scheduler.submit(ticket._answer)] = ticket
        for ticket in cancelled:
            if not ticket._has_ended:
                self._scheduler.cancel(ticket._answer.ticket)
                self._tell(ticket, AnswerCancelledError("the answer was cancelled by its caller."))
        return True

    def _wait(self) -> None:
        """Sleep until there is something to do; in a pause, give back memory."""
        with self._changed:
            if self._changed.wait_for(self._has_orders, _PAUSE_SECONDS):
                return
        give_back_memory()
        with self._changed:
            self._changed.wait_for(self._has_orders)

    def _has_orders(self) -> bool:
        return bool(self._submitted or self._cancelled or self._tickets or self._is_closed)

    def _step(self) -> None:
        if self._scheduler.is_idle:
            self._note()
            return
        try:
            events = self._scheduler.step()
        except Exception as error:
            _LOGGER.exception("a step of the engine failed")
            self._scheduler.reset()
            failure = GenerationError(
                f"the engine failed ({first_line(error)}), which is a fault of glm-export; report "
                "it, and ask again."
            )
            for ticket in list(self._tickets.values()):
                self._tell(ticket, failure)
            return
        self._note()
        for one in events:
            self._tell(self._tickets[one.ticket], one.event)

    def _note(self) -> None:
        with self._changed:
            self._statistics = self._scheduler.statistics

    def _tell(self, ticket: Ticket, event: Event) -> None:
        """Report an event; a listener that fails loses its answer, and the others go on."""
        if ticket._has_ended:
            return
        if is_last(event):
            self._forget(ticket)
        try:
            ticket._on_event(event)
        except Exception:
            _LOGGER.exception("a listener of an answer failed")
            if not ticket._has_ended:
                self._scheduler.cancel(ticket._answer.ticket)
                self._forget(ticket)

    def _forget(self, ticket: Ticket) -> None:
        ticket._has_ended = True
        self._tickets.pop(ticket._answer.ticket, None)
        with self._changed:
            self._num_live -= 1

    def _end_all(self) -> None:
        """Give every request that is left its last event."""
        with self._changed:
            self._is_closed = True
            left = [*self._tickets.values(), *self._submitted]
            self._submitted.clear()
        for ticket in left:
            self._tell(ticket, _explain_close())
        self._scheduler.reset()
        self._note()


def _explain_close() -> GlmRuntimeError:
    return AnswerCancelledError(
        "the engine was closed before the answer was complete; ask again when it has restarted."
    )
