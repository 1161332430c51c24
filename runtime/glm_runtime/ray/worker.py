"""A worker: one loaded model with continuous batching, in a process of its own.

The driver sends rows and takes answers with one call, `exchange`, of which one is always on its
way. Answers come in the order in which they end.
"""

import dataclasses
import hashlib
import json
import os
import queue
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glm_runtime.answering.engine import Engine
from glm_runtime.answering.events import Event, SchedulerLimits, Started
from glm_runtime.answering.generation import Request
from glm_runtime.answering.keywords import make_settings
from glm_runtime.answering.settings import GenerationSettings, Piece
from glm_runtime.errors import GlmRuntimeError, RayError, describe_os_error
from glm_runtime.graph.machine import count_usable_cores
from glm_runtime.graph.prepared import PreparedModels
from glm_runtime.graph.rotary import RopeScaling
from glm_runtime.model import Model, load
from glm_runtime.prompt_lines import PromptLine, Result, describe_pieces, read_line
from glm_runtime.ray.folders import FolderAddress, provide_folder
from glm_runtime.ray.plan import PlannedRow
from glm_runtime.text.chat_messages import ChatOptions

# All prompts that have a row are read before the next step, as `Model.generate_many` does.
_WHOLE_PROMPTS = 1 << 40
_MANY_ROWS = 1 << 20  # more than a driver sends
# After the first answer others are awaited for this time, so that many short ones travel together.
_GATHER_SECONDS = 0.02


@dataclass(frozen=True)
class AnswerOptions:
    """How a worker answers.

    Attributes:
        rows: number of rows that it answers at the same time.
        threads: number of its threads; `None` takes the physical cores of its share of the machine.
        settings: settings of all rows; a row's own win.
        options: what a chat offers; `None` takes each prompt as raw text.
        has_huge_pages: whether to move the weights onto huge pages (Linux).
        rope_scaling: rotary settings instead of the folder's.
    """

    rows: int = 8
    threads: int | None = None
    settings: GenerationSettings = dataclasses.field(default_factory=GenerationSettings)
    options: ChatOptions | None = dataclasses.field(default_factory=ChatOptions)
    has_huge_pages: bool = True
    rope_scaling: RopeScaling | None = None


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker loads, and how it answers.

    Attributes:
        folder: the model folder.
        share: number of processors that Ray gives the worker.
        answering: how it answers.
    """

    folder: FolderAddress
    share: float = 1.0
    answering: AnswerOptions = dataclasses.field(default_factory=AnswerOptions)


@dataclass(frozen=True)
class Answered:
    """A row's answer.

    Attributes:
        position: its position in the plan.
        line: the answer as a line of JSON.
        new_tokens: number of its tokens.
        is_failed: whether it is an error.
    """

    position: int
    line: str
    new_tokens: int
    is_failed: bool


@dataclass(frozen=True)
class Place:
    """Where a worker runs."""

    machine: str
    process: int
    threads: int


class RowEngine:
    """A loaded model that answers rows."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Load the model.

        Raises:
            RayError: names this machine and what is wrong with the folder or its disk.
        """
        self._settings = settings
        try:
            self.model = _load(settings)
        except GlmRuntimeError as error:
            raise RayError(f"on {socket.gethostname()}: {error}") from error
        except OSError as error:
            raise RayError(
                f"on {socket.gethostname()}: the system refused {error.filename or 'a file'} "
                f"({describe_os_error(error)}); check the disk and the permissions."
            ) from error
        limits = SchedulerLimits(settings.answering.rows, _WHOLE_PROMPTS, max_waiting=_MANY_ROWS)
        self._engine = Engine(self.model, limits)

    def submit(self, line: PromptLine, row_id: str, take: Callable[[Result], None]) -> None:
        """Queue a row; `take` gets its answer or error, in another thread or at once."""
        pieces: list[Piece] = []
        head: Result = {"row_id": row_id, **line.ids}
        try:
            request = self._make_request(line, row_id)
            num_tokens = len(request.prompt_ids)
        except GlmRuntimeError as error:
            take(head | {"error": str(error)})
            return

        def note(event: Event) -> None:
            if isinstance(event, Started):
                return
            if isinstance(event, GlmRuntimeError):
                take(head | {"error": str(event)})
                return
            pieces.append(event)
            if event.finish_reason is not None:
                take(head | describe_pieces(pieces) | {"prompt_tokens": num_tokens})

        try:
            self._engine.submit(request, note)
        except GlmRuntimeError as error:
            take(head | {"error": str(error)})

    def _make_request(self, line: PromptLine, row_id: str) -> Request:
        options = self._settings.answering
        request = line.make_request(self.model, options.settings, options.options)
        if request.settings.sampling.seed is not None:
            return request
        settings = make_settings(request.settings, {"seed": derive_seed(row_id)})
        return dataclasses.replace(request, settings=settings)


class Worker:
    """What an actor of `glm-run batch` is."""

    def __init__(self) -> None:
        """Do nothing, so that `start` can report what goes wrong."""
        self._engine: RowEngine | None = None
        self._finished: queue.SimpleQueue[Answered] = queue.SimpleQueue()

    def start(self, settings: WorkerSettings) -> Place:
        """Load the model.

        Raises:
            RayError: names this machine and what is wrong.
        """
        self._engine = RowEngine(settings)
        return Place(socket.gethostname(), os.getpid(), self._engine.model.graph.threads)

    def exchange(
        self, rows: Sequence[tuple[int, PlannedRow]], wait_seconds: float
    ) -> list[Answered]:
        """Take rows with their positions, and return the answers that are complete.

        It returns without an answer after `wait_seconds`.
        """
        assert self._engine is not None
        for position, row in rows:
            take = self._expect(position)
            if row.error:
                take({"row_id": row.row_id, "error": row.error})
                continue
            line = read_line(row.place, 0, row.text.encode("utf-8", "surrogatepass"))
            self._engine.submit(line, row.row_id, take)
        return self._collect(wait_seconds)

    def _expect(self, position: int) -> Callable[[Result], None]:
        def take(result: Result) -> None:
            tokens = result.get("new_tokens", 0)
            assert isinstance(tokens, int)
            line = json.dumps(result, ensure_ascii=False)
            self._finished.put(Answered(position, line, tokens, "error" in result))

        return take

    def _collect(self, wait_seconds: float) -> list[Answered]:
        try:
            found = [self._finished.get(timeout=wait_seconds)]
        except queue.Empty:
            return []
        end = time.monotonic() + _GATHER_SECONDS
        while True:
            try:
                found.append(self._finished.get(timeout=max(end - time.monotonic(), 0)))
            except queue.Empty:
                return found


def derive_seed(row_id: str) -> int:
    """Return the seed of a row that has none, which does not depend on who answers it."""
    return int.from_bytes(hashlib.sha256(row_id.encode("utf-8", "surrogatepass")).digest()[:4])


def _load(settings: WorkerSettings) -> Model:
    folder = provide_folder(settings.folder)
    options = settings.answering
    threads = options.threads
    if threads is None:
        threads = max(1, min(int(settings.share), count_usable_cores()))
    return load(
        folder,
        "cpu",
        threads,
        has_huge_pages=options.has_huge_pages,
        prepared=PreparedModels.of_user(),
        rope_scaling=options.rope_scaling,
    )
