"""Answers many requests in one batch; a finished row makes room for the next prompt.

Batches run on the CPU; on other devices the prompts are answered one after another. Read
`scheduler.py` for how.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from glm_runtime.answering.events import SchedulerLimits, Started
from glm_runtime.answering.generation import Request
from glm_runtime.answering.scheduler import Scheduler
from glm_runtime.answering.settings import GenerationSettings, Piece
from glm_runtime.errors import GlmRuntimeError, GrammarError, PromptError, SamplingError
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.inference import OpenGraph
from glm_runtime.text.tokenizer import Tokenizer

# Errors that belong to one request, not to the model or the machine.
_REQUEST_ERRORS = (PromptError, SamplingError, GrammarError)
_Given = Request | PromptError
# All prompts that have a row are read before the next step, so that steps have many rows.
_WHOLE_PROMPTS = 1 << 40


@dataclass(frozen=True)
class BatchPiece:
    """A piece of one of many answers.

    Attributes:
        index: number of the request, in the order of arrival.
        piece: the piece of its answer; `None` if the request failed.
        error: the reason of the failure.
    """

    index: int
    piece: Piece | None
    error: GlmRuntimeError | None = None


class Batch:
    """Answers requests in one batch."""

    def __init__(
        self,
        graph: OpenGraph,
        model: ModelEntry,
        tokenizer: Tokenizer,
        defaults: GenerationSettings,
    ) -> None:
        self._graph = graph
        self._model = model
        self._tokenizer = tokenizer
        self._defaults = defaults

    def run(self, requests: Iterable[_Given], max_rows: int) -> Iterator[BatchPiece]:
        """Answer requests, at most `max_rows` of them at the same time.

        Pieces of different answers are interleaved; those of one answer come in order. A request
        that cannot be answered yields one piece with its error, and the others go on. So does an
        error in place of a request, for a prompt that could not be read. If ONNX Runtime fails,
        every answer that took part ends with the error.

        Raises:
            SamplingError: `max_rows` is less than 1.
        """
        limits = SchedulerLimits(max_rows, _WHOLE_PROMPTS)
        scheduler = Scheduler(self._graph, self._model, self._tokenizer, self._defaults, limits)
        return _run(scheduler, enumerate(requests))


def _run(scheduler: Scheduler, numbered: Iterator[tuple[int, _Given]]) -> Iterator[BatchPiece]:
    indices: dict[int, int] = {}  # by ticket
    while True:
        while scheduler.num_answers < scheduler.max_rows:
            index, given = next(numbered, (-1, None))
            if given is None:
                break
            try:
                if isinstance(given, PromptError):
                    raise given
                indices[scheduler.submit(scheduler.prepare(given))] = index
            except _REQUEST_ERRORS as error:
                yield BatchPiece(index, None, error)
        if scheduler.is_idle:
            return
        for one in scheduler.step():
            if isinstance(one.event, GlmRuntimeError):
                yield BatchPiece(indices[one.ticket], None, one.event)
            elif not isinstance(one.event, Started):
                yield BatchPiece(indices[one.ticket], one.event)
