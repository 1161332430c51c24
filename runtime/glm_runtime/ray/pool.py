"""The pool of actors, each with one loaded model.

A worker that ends gives its rows back, and another one takes its place where Ray finds room. The
driver alone knows which rows have answers.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from glm_runtime.errors import GlmRuntimeError, RayError
from glm_runtime.ray.plan import Plan
from glm_runtime.ray.row_queue import TRIES, RowQueue
from glm_runtime.ray.worker import Answered, Place, Worker, WorkerSettings

_WAIT_SECONDS = 5.0  # a worker without an answer replies after this time
_PENDING_SECONDS = 30.0  # after which a user learns that Ray finds no room for any worker
_MOST_LOST_AT_START = 3  # in sequence, before any worker has started


@dataclass
class PoolReport:
    """What a pool has done.

    Attributes:
        num_tokens: number of tokens of all answers.
        num_answered: number of rows.
        num_started: number of workers that loaded the model.
        num_lost: number of workers that ended before the job.
        seconds: time from the first row that was sent to the last answer.
        driver_seconds: time that the driver itself worked meanwhile.
        places: where the workers ran.
    """

    num_tokens: int = 0
    num_answered: int = 0
    num_started: int = 0
    num_lost: int = 0
    seconds: float = 0.0
    driver_seconds: float = 0.0
    places: list[Place] = field(default_factory=list)


@dataclass(eq=False)
class _Member:
    """An actor and the call that it answers next."""

    number: int
    actor: Any
    call: Any
    is_started: bool = False


class Pool:
    """Workers that answer the rows of a plan."""

    def __init__(
        self,
        ray: Any,
        settings: WorkerSettings,
        num_workers: int,
        say: Callable[[str], None],
        kind: type[Worker] = Worker,
    ) -> None:
        """Prepare a pool; `run` starts it.

        Args:
            ray: the module, connected.
            settings: what each worker loads, and how it answers.
            num_workers: number of workers.
            say: prints a line for people.
            kind: the class of the actors.
        """
        self._ray = ray
        self._kind = kind
        self._settings = settings
        self._num_workers = num_workers
        self._say = say
        self._members: dict[Any, _Member] = {}  # by call
        self._next_number = 0
        self._lost_at_start = 0
        self._num_running = 0
        self.report = PoolReport()

    def run(self, plan: Plan, queue: RowQueue, take: Callable[[list[Answered]], None]) -> None:
        """Answer all rows of the queue.

        Args:
            plan: the plan that holds the rows.
            queue: their positions.
            take: gets answers as they arrive.

        Raises:
            RayError: no worker can start, or all ended.
        """
        created = time.monotonic()
        is_told = False
        first_sent = 0.0
        for _ in range(min(self._num_workers, len(queue))):
            self._add_member()
        try:
            while len(queue) or queue.num_held:
                ready = self._wait()
                started = time.perf_counter()
                for call in ready:
                    self._serve(self._members.pop(call), plan, queue, take)
                    first_sent = first_sent or (started if queue.num_held else 0.0)
                self.report.driver_seconds += time.perf_counter() - started
                is_late = time.monotonic() - created > _PENDING_SECONDS
                if is_late and not is_told and not self.report.num_started:
                    is_told = True
                    self._say("waiting for workers: the cluster has no free processors, or loads")
            self.report.seconds = time.perf_counter() - first_sent if first_sent else 0.0
        finally:
            self._close()

    def _wait(self) -> list[Any]:
        calls = list(self._members)
        ready, rest = self._ray.wait(calls, num_returns=1, timeout=1.0)
        if ready and rest:
            ready += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return list(ready)

    def _add_member(self) -> None:
        # A worker that has ended is replaced here and not by Ray, which would let its rows wait
        # for a machine that may never come back.
        options = {"num_cpus": self._settings.share, "max_restarts": 0, "max_task_retries": 0}
        kind = self._ray.remote(self._kind)
        actor = kind.options(**options, scheduling_strategy="SPREAD").remote()
        call = actor.start.remote(self._settings)
        self._members[call] = _Member(self._next_number, actor, call)
        self._next_number += 1

    def _serve(
        self,
        member: _Member,
        plan: Plan,
        queue: RowQueue,
        take: Callable[[list[Answered]], None],
    ) -> None:
        """Take what a worker replied, and send it new rows."""
        try:
            reply = self._ray.get(member.call)
        except GlmRuntimeError as error:  # Ray's error is also of the class of its cause
            self._fail(member, error)
            return
        except self._ray.exceptions.RayTaskError as error:
            raise RayError(
                f"a worker failed ({_describe_death(error.cause)}), which is a fault of "
                "glm-export, or another version runs there; install the same one everywhere."
            ) from error
        except self._ray.exceptions.RayError as error:  # the process or its machine is gone
            self._lose(member, plan, queue, take, error)
            return
        if isinstance(reply, Place):
            member.is_started = True
            self._num_running += 1
            self._lost_at_start = 0
            self.report.num_started += 1
            self.report.places.append(reply)
        else:
            answered = [one for one in reply if queue.settle(member.number, one.position)]
            self._note(answered, take)
        if not len(queue) and not queue.num_held:
            return
        positions = queue.take(member.number, self._num_running)
        rows = [(position, plan.read(position)) for position in positions]
        member.call = member.actor.exchange.remote(rows, _WAIT_SECONDS)
        self._members[member.call] = member

    def _note(self, answered: list[Answered], take: Callable[[list[Answered]], None]) -> None:
        if answered:
            self.report.num_answered += len(answered)
            self.report.num_tokens += sum(one.new_tokens for one in answered)
            take(answered)

    def _lose(
        self,
        member: _Member,
        plan: Plan,
        queue: RowQueue,
        take: Callable[[list[Answered]], None],
        error: BaseException,
    ) -> None:
        reason = _describe_death(error)
        self.report.num_lost += 1
        self._num_running -= member.is_started
        given_up = queue.lose(member.number)
        self._note([_give_up(position, plan) for position in given_up], take)
        self._lost_at_start += not member.is_started
        if self._lost_at_start >= _MOST_LOST_AT_START:
            if not self._members:
                raise RayError(
                    f"{self._lost_at_start} worker processes ended while they loaded the model "
                    f"({reason}); check the memory of the machines and that glm-export is "
                    "installed on them."
                ) from error
            self._say(f"a worker ended while it loaded the model ({reason}); going on without it")
            return
        self._say(f"a worker ended ({reason}); its rows go to others")
        self._add_member()

    def _fail(self, member: _Member, error: GlmRuntimeError) -> None:
        """Go on without a worker whose machine cannot load the model."""
        failure = RayError(str(getattr(error, "cause", None) or error))
        self._ray.kill(member.actor)
        if not self._members:
            raise failure from error
        self._say(f"going on without a worker: {failure}")

    def _close(self) -> None:
        for member in self._members.values():
            self._ray.kill(member.actor)
        self._members.clear()


def _give_up(position: int, plan: Plan) -> Answered:
    reason = (
        f"the process of the worker ended {TRIES} times while it answered this row; make the "
        "prompt or the answer shorter, or give the workers more memory."
    )
    result = {"row_id": plan.read(position).row_id, "error": reason}
    return Answered(position, json.dumps(result, ensure_ascii=False), 0, True)


def _describe_death(error: BaseException) -> str:
    """Return the reason that Ray gives, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if "node" in line or "memory" in line or "exit" in line]
    return (causes or lines or [type(error).__name__])[0].rstrip(".")[:200]
