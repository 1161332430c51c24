"""What happens to a request, and the limits and counts of those who answer many at a time."""

from dataclasses import dataclass

from glm_runtime.answering.settings import Piece
from glm_runtime.errors import GlmRuntimeError, SamplingError


@dataclass(frozen=True)
class Started:
    """The first event of a request: its prompt is being read.

    Attributes:
        cached_tokens: number of prompt tokens whose keys and values were there already.
    """

    cached_tokens: int


# A request ends with its first error, or with the piece that has a finish reason.
Event = Started | Piece | GlmRuntimeError


def is_last(event: Event) -> bool:
    """Return whether no other event follows for the same request."""
    if isinstance(event, Piece):
        return event.finish_reason is not None
    return isinstance(event, GlmRuntimeError)


@dataclass(frozen=True)
class TicketEvent:
    """An event of one of many requests.

    Attributes:
        ticket: the number that `Scheduler.submit` gave to the request.
        event: what happened to it.
    """

    ticket: int
    event: Event


@dataclass(frozen=True)
class SchedulerLimits:
    """How many requests are answered at the same time, and how much memory they may take.

    Attributes:
        max_rows: number of answers that are written at the same time; other devices than the CPU
            write one.
        chunk_tokens: number of prompt tokens that are read between two steps of the running
            answers. With 1.5 billion int4 weights, 64 at a time took 1 % more processor time than
            128, and 32 took 7 % more.
        context_bytes: largest number of bytes of all KV caches and kept prefixes together; `None`
            sets no limit, and then nothing is kept after an answer.
        max_waiting: number of further requests that may wait in an `Engine`.

    Raises:
        SamplingError: a number is less than 1, or `max_waiting` is less than 0.
    """

    max_rows: int = 8
    chunk_tokens: int = 64
    context_bytes: int | None = None
    max_waiting: int = 64

    def __post_init__(self) -> None:
        for name, lowest, usual in (
            ("max_rows", 1, 8),
            ("chunk_tokens", 1, 64),
            ("context_bytes", 1, 4 * 10**9),
            ("max_waiting", 0, 64),
        ):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise SamplingError(
                    f"{name} is {value} where {lowest} or more is expected; {usual} is usual."
                )


@dataclass(frozen=True)
class EngineStatistics:
    """What an engine is doing and has done.

    Attributes:
        running: number of answers that have a row, also of prompts that are being read.
        waiting: number of requests that have none.
        prompt_tokens_read: number of prompt tokens that the graph has read.
        prompt_tokens_cached: number of prompt tokens whose keys and values were there already.
        generated_tokens: number of tokens of all answers.
        row_bytes: bytes of the KV cache of all rows.
        prefix_bytes: bytes of the kept prefixes.
        preemptions: number of times that an answer gave up its row for others.
    """

    running: int = 0
    waiting: int = 0
    prompt_tokens_read: int = 0
    prompt_tokens_cached: int = 0
    generated_tokens: int = 0
    row_bytes: int = 0
    prefix_bytes: int = 0
    preemptions: int = 0

    @property
    def cache_bytes(self) -> int:
        """Bytes of all keys and values together."""
        return self.row_bytes + self.prefix_bytes
