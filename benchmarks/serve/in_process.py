"""Our runtime without HTTP in a worker process, for comparison. Read `processes.py` before.

    python -m benchmarks.serve.in_process KIND FOLDER THREADS

An `engine` answers as the server does, through the scheduler. A `session` answers as `glm-run chat`
does: it keeps the tokens of the last answer, so that a second turn reads only what is new.
"""

import queue
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.processes import Worker, find_module, serve
from benchmarks.serve.servers import ROWS
from glm_runtime import GenerationSettings, Model, SamplingSettings, load
from glm_runtime.answering.engine import Engine
from glm_runtime.answering.events import Event, SchedulerLimits, Started
from glm_runtime.answering.generation import Request
from glm_runtime.errors import GlmRuntimeError


def start_worker(kind: str, folder: Path, threads: int) -> Worker:
    """Start this module.

    Raises:
        ChildError: the folder could not be loaded.
    """
    return Worker(kind, [*find_module("serve.in_process"), kind, str(folder), str(threads)])


def _make_settings(num_tokens: int) -> GenerationSettings:
    return GenerationSettings(SamplingSettings(temperature=0.0), num_tokens, is_eos_ignored=True)


class _EngineSystem:
    def __init__(self, model: Model) -> None:
        self._engine = Engine(model, SchedulerLimits(ROWS, context_bytes=10**9))

    def generate(self, prompt: Sequence[int], num_tokens: int) -> Iterator[int]:
        """See `processes.System`."""
        events: queue.Queue[Event] = queue.Queue()
        self._engine.submit(Request(tuple(prompt), _make_settings(num_tokens)), events.put)
        while True:
            event = events.get()
            if isinstance(event, GlmRuntimeError):
                raise event
            if not isinstance(event, Started):
                yield event.token_id
                if event.finish_reason is not None:
                    return


class _SessionSystem:
    def __init__(self, model: Model) -> None:
        self._session = model.new_session()

    def generate(self, prompt: Sequence[int], num_tokens: int) -> Iterator[int]:
        """See `processes.System`."""
        for piece in self._session.generate(prompt, _make_settings(num_tokens)):
            yield piece.token_id


def main() -> None:
    """Entry point."""
    kind, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    systems = {"engine": _EngineSystem, "session": _SessionSystem}
    serve(lambda: systems[kind](load(folder, "cpu", threads, has_huge_pages=True)))


if __name__ == "__main__":
    main()
