"""Continuous batching: many answers at a time, and prompts that are read between their steps.

A scheduler does one thing at a time, in `step`: it reads at most one chunk of prompts, or it gives
every running answer one more token. It reads no clock and starts no thread. Every answer is the one
that its prompt gets alone, except for the last bits of the logits, because kernels add several rows
in another order. Read `generation.py` and `row_cache.py` before.
"""

import dataclasses
from collections import Counter

from glm_runtime.answering.batch_decoder import OPEN_ROW
from glm_runtime.answering.cache_budget import BufferShape
from glm_runtime.answering.device_row import DeviceRow
from glm_runtime.answering.events import (
    EngineStatistics,
    Event,
    SchedulerLimits,
    Started,
    TicketEvent,
    is_last,
)
from glm_runtime.answering.generation import AnswerWriter, Request, check_prompt
from glm_runtime.answering.prefix_files import PrefixFiles
from glm_runtime.answering.request_queue import Answer, RequestQueue
from glm_runtime.answering.row_cache import RowCache
from glm_runtime.answering.settings import GenerationSettings
from glm_runtime.arrays import FloatArray
from glm_runtime.errors import GlmRuntimeError
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.decoding import PREFILL_CHUNK
from glm_runtime.graph.inference import OpenGraph
from glm_runtime.sampling.sampler import require_finite
from glm_runtime.text.tokenizer import Tokenizer

# Tokens that are loaded from disk instead of reading one. A token's float32 keys and values of a
# model of 1.5 billion weights took 0.25 ms of an AVX2 core; the model reads it in 10 ms or more.
_LOADS_PER_READ = 8


class Scheduler:
    """Answers requests, each in a row of its own; one thread may use it."""

    def __init__(
        self,
        graph: OpenGraph,
        model: ModelEntry,
        tokenizer: Tokenizer,
        defaults: GenerationSettings,
        limits: SchedulerLimits,
        files: PrefixFiles | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._defaults = defaults
        self._cache = RowCache(graph, model, limits, files)
        self._rows = self._cache.rows
        # Elsewhere nobody waits for a step while a prompt is read.
        self._chunk = limits.chunk_tokens if graph.device == "cpu" else self._rows.largest_read
        self._waiting = RequestQueue()
        self._open: Answer | None = None  # its prompt is being read into the open row
        self._running: list[Answer] = []  # in the order of the rows
        self._next_ticket = 0
        self._reads_next = True
        self._events: list[TicketEvent] = []
        self._counts: Counter[str] = Counter()  # by the names of EngineStatistics

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self.num_answers

    @property
    def num_answers(self) -> int:
        """Number of requests that wait or run."""
        return len(self._waiting) + len(self._list_admitted())

    @property
    def max_rows(self) -> int:
        """Number of answers that are written at the same time."""
        return self._cache.max_rows

    @property
    def statistics(self) -> EngineStatistics:
        """What is going on, and what has been done so far."""
        return EngineStatistics(
            **self._counts,
            running=len(self._list_admitted()),
            waiting=len(self._waiting),
            row_bytes=self._cache.row_bytes,
            prefix_bytes=self._cache.prefix_bytes,
        )

    def prepare(self, request: Request) -> Answer:
        """Check a request, and compile its grammar; any thread may call this at any time.

        Raises:
            PromptError: the prompt is empty, does not fit, or holds an id that is no token.
            SamplingError: a bias names an id that is no token.
            GrammarError: the grammar is not valid.
            MissingDependencyError: a grammar is given and llguidance is not installed.
        """
        settings = request.settings.fill(self._defaults)
        tokens, budget = list(request.prompt_ids), self._cache.budget
        check_prompt(tokens, self._model)
        budget.check(len(tokens))
        request = dataclasses.replace(request, prompt_ids=tuple(tokens), settings=settings)
        writer = AnswerWriter(self._tokenizer, self._model, request)
        writer.remaining = min(writer.remaining, budget.longest - len(tokens) + 1)
        answer = Answer(writer, tokens)
        if request.scores_prompt:
            answer.scores, answer.num_top = [], settings.top_logprobs or 0
        return answer

    def submit(self, answer: Answer) -> int:
        """Put a prepared request at the end of the queue; return its ticket."""
        answer.ticket = self._next_ticket
        self._next_ticket += 1
        self._waiting.add(answer)
        return answer.ticket

    def cancel(self, ticket: int) -> bool:
        """End a request without a further event; return False if it has ended already."""
        for answer in (*self._waiting, *self._list_admitted()):
            if answer.ticket == ticket:
                if answer in self._waiting:
                    self._waiting.remove(answer)
                else:
                    self._release(answer)
                return True
        return False

    def reset(self) -> None:
        """Forget all requests without a further event, and free all memory."""
        self._running, self._open = [], None
        self._waiting.clear()
        self._cache.clear()

    def step(self) -> list[TicketEvent]:
        """Read one chunk of prompts, or write one token of every running answer.

        The two take turns as long as there is something to read. If ONNX Runtime fails, every
        answer that took part ends with a GenerationError, and the others go on.
        """
        self._events = []
        if self._reads_next or not self._running:
            self._reads_next = False
            if self._read_chunk():
                return self._events
        if self._running:
            self._write_tokens()
            self._reads_next = True
        return self._events

    def _list_admitted(self) -> list[Answer]:
        """Return the answers that have a row; the open row is the last one."""
        return [*self._running] if self._open is None else [*self._running, self._open]

    def _choose_next(self) -> tuple[Answer, BufferShape] | None:
        """Return who gets a row next, and the buffers with that row; `None` if all must wait."""
        rows = len(self._running) + 1
        if rows > self._cache.max_rows:
            return None
        longest = max((answer.needed for answer in self._running), default=0)
        return self._waiting.choose(
            lambda answer: self._cache.plan(rows, max(longest, answer.needed))
        )

    def _read_chunk(self) -> bool:
        """Read prompts, the first one first, until a chunk is full or no row is free.

        Return False if there was nothing to read.
        """
        done, has_begun = 0, False
        while (room := self._chunk_room - done) > 0:
            if self._open is None:
                before = self._cache.row_bytes
                if not self._admit():
                    return has_begun
                if self._running and self._cache.row_bytes != before:
                    return True  # other rows were moved, which takes time as reading does
            has_begun = True
            answer = self._open
            if answer is None:
                return True
            if self._cache.is_loading:
                done += self._load(answer, room)
                continue
            left = len(answer.tokens) - (self._rows.open_length or 0)
            if left > room and room < min(self._chunk, self._rows.largest_read) // 4:
                return True  # a run of few tokens takes nearly as long as one of many
            largest = self._rows.largest_read if answer.scores is None else PREFILL_CHUNK
            done += self._read(answer, min(left, room, largest))
        return True

    @property
    def _chunk_room(self) -> int:
        """Number of prompt tokens that may be read in one step."""
        # Where no answer waits for its next token, larger chunks are a little faster.
        return self._chunk if self._running else max(self._chunk, self._rows.largest_read)

    def _read(self, answer: Answer, count: int) -> int:
        """Read tokens of the open row; return how many were read."""
        start = self._rows.open_length or 0
        tokens = answer.tokens[start : start + count]
        try:
            logits = self._rows.read(tokens, 1 if answer.scores is None else count)
        except GlmRuntimeError as error:
            self._tell(answer, error)
            self._release(answer)
            return 0
        answer.score(start, logits)
        self._counts["prompt_tokens_read"] += count
        if start + count == len(answer.tokens):
            self._rows.finish()
            self._open = None
            self._running.append(answer)
            self._write(answer, logits[-1])
        return count

    def _admit(self) -> bool:
        """Open a row for the next waiting request; return False if there is no room for one."""
        chosen = self._choose_next()
        if chosen is None:
            return False
        answer, shape = chosen
        self._waiting.admit(answer)
        others = [other.tokens for other in self._running]
        try:
            # The logits of tokens that come from the cache are not known.
            most = None if answer.scores is None else len(answer.scores)
            self._cache.open_row(answer.tokens, others, shape, most)
        except GlmRuntimeError as error:
            self._tell(answer, error)
            self._fail_all(error)
            return True
        self._open = answer
        if not self._cache.is_loading:
            self._start(answer)
        return True

    def _load(self, answer: Answer, room: int) -> int:
        """Load a part of the open row from disk; return as how much reading it counts."""
        loaded = self._cache.load_stored(room * _LOADS_PER_READ)
        if not self._cache.is_loading:
            self._start(answer)
        return -(-loaded // _LOADS_PER_READ)

    def _start(self, answer: Answer) -> None:
        """Tell that the prompt is being read, once for each request."""
        if answer.has_started:
            return
        answer.has_started = True
        cached = self._rows.open_length or 0
        self._counts["prompt_tokens_cached"] += cached
        self._tell(answer, Started(cached))

    def _write_tokens(self) -> None:
        """Give every running answer one more token."""
        try:
            self._make_room()
            running = list(self._running)
            if self._rows.chooses_greedily and running[0].writer.is_plainly_greedy:
                self._follow_greedily(running[0])
                return
            found = self._rows.step([answer.tokens[-1] for answer in running])
        except GlmRuntimeError as error:
            self._fail_all(error)
            return
        for answer, logits in zip(running, found, strict=True):
            if answer in self._running:
                self._write(answer, logits)

    def _write(self, answer: Answer, logits: FloatArray) -> None:
        """Choose the next token of an answer, which may be its last one."""
        event: Event
        try:
            event = answer.writer.write(logits)
            answer.tokens.append(event.token_id)
            if answer.scores is not None:
                event = dataclasses.replace(event, prompt_logprobs=answer.take_scores())
        except GlmRuntimeError as error:
            event = error
        self._conclude(answer, event)

    def _follow_greedily(self, answer: Answer) -> None:
        """Take the token that the device chose, so that the logits stay there."""
        assert isinstance(self._rows, DeviceRow)
        token, logit = self._rows.choose_next(answer.tokens[-1])
        require_finite(logit)
        answer.tokens.append(token)
        self._conclude(answer, answer.writer.add(token))

    def _conclude(self, answer: Answer, event: Event) -> None:
        self._tell(answer, event)
        self._counts["generated_tokens"] += not isinstance(event, GlmRuntimeError)
        if is_last(event):
            self._release(answer)

    def _make_room(self) -> None:
        """Let every row grow by a token; the newest ones give up theirs if memory runs out.

        Raises:
            GenerationError: the memory that the limits allow is not there; all rows are lost.
        """
        while True:
            answers = self._list_admitted()
            longest = max(len(answer.tokens) for answer in answers)
            shape = self._cache.plan(len(answers), longest)
            if shape is not None:
                self._cache.resize(shape)
                return
            self._preempt(max(answers, key=lambda answer: answer.ticket))

    def _preempt(self, answer: Answer) -> None:
        """Let an answer wait in its old place; it goes on from its tokens."""
        self._counts["preemptions"] += 1
        self._close_row(answer)
        answer.reserve()
        self._waiting.add(answer)

    def _release(self, answer: Answer) -> None:
        """Remove the row of an answer that has ended, and give back its memory."""
        self._close_row(answer)
        answers = self._list_admitted()
        longest = max((other.needed for other in answers), default=0)
        try:
            self._cache.trim(len(answers), longest)
        except GlmRuntimeError as error:
            self._fail_all(error)

    def _close_row(self, answer: Answer) -> None:
        if answer is self._open:
            self._cache.close_row(answer.tokens, OPEN_ROW)
            self._open = None
            return
        row = self._running.index(answer)
        self._cache.close_row(answer.tokens, row)
        last = self._running.pop()
        if last is not answer:
            self._running[row] = last

    def _fail_all(self, error: GlmRuntimeError) -> None:
        """End every answer that has a row after an error of the machine."""
        for answer in self._list_admitted():
            self._tell(answer, error)
        self._running, self._open = [], None
        self._cache.drop_rows()

    def _tell(self, answer: Answer, event: Event) -> None:
        self._events.append(TicketEvent(answer.ticket, event))
