"""Continuous batching: a finished row makes room for the next waiting prompt.

Every answer is the one that its prompt gets alone, except for the last bits of the logits, because
kernels add several rows in another order. Batches run on the CPU; on other devices the prompts are
answered one after another.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from glm_runtime.answering.batch_decoder import BatchDecoder
from glm_runtime.answering.generation import AnswerWriter, Request, check_prompt, generate
from glm_runtime.answering.settings import GenerationSettings, Piece
from glm_runtime.arrays import FloatArray
from glm_runtime.errors import GlmRuntimeError, GrammarError, PromptError, SamplingError
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.decoding import Decoder, count_shared
from glm_runtime.graph.inference import OpenGraph
from glm_runtime.text.tokenizer import Tokenizer

# Errors that belong to one request, not to the model or the machine.
_REQUEST_ERRORS = (PromptError, SamplingError, GrammarError)
_Given = Request | PromptError
# A shorter common prefix is read faster than it is found and copied.
_SHORTEST_PREFIX = 8


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


@dataclass
class _Row:
    index: int
    writer: AnswerWriter
    tokens: list[int]
    logits: FloatArray


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
        error in place of a request, for a prompt that could not be read.

        Raises:
            SamplingError: `max_rows` is less than 1.
            GenerationError: ONNX Runtime failed.
        """
        if max_rows < 1:
            raise SamplingError(f"max_rows is {max_rows} where 1 or more is expected; 8 is usual.")
        numbered = enumerate(requests)
        if self._graph.device != "cpu":
            return self._run_in_turn(numbered)
        return self._run_together(numbered, max_rows)

    def _run_in_turn(self, numbered: Iterable[tuple[int, _Given]]) -> Iterator[BatchPiece]:
        for index, given in numbered:
            try:
                request = self._fill(given)
                writer = self._start(request)
                decoder = Decoder(self._graph, self._model)
                for piece in generate(decoder, writer, request):
                    yield BatchPiece(index, piece)
            except _REQUEST_ERRORS as error:
                yield BatchPiece(index, None, error)

    def _run_together(
        self, numbered: Iterator[tuple[int, _Given]], max_rows: int
    ) -> Iterator[BatchPiece]:
        decoder = BatchDecoder(self._graph, self._model, max_rows)
        rows: list[_Row] = []
        while True:
            while len(rows) < max_rows and (waiting := next(numbered, None)) is not None:
                row = self._admit(decoder, rows, *waiting)
                if isinstance(row, _Row):
                    rows.append(row)
                else:
                    yield row
            if not rows:
                return
            yield from _write_all(decoder, rows)
            if rows:
                logits = decoder.step([row.tokens[-1] for row in rows])
                for row, of_row in zip(rows, logits, strict=True):
                    row.logits = of_row

    def _admit(
        self, decoder: BatchDecoder, rows: list[_Row], index: int, given: _Given
    ) -> _Row | BatchPiece:
        """Read a prompt into a new row; a prefix that another row holds is copied."""
        try:
            request = self._fill(given)
            writer = self._start(request)
            tokens = list(request.prompt_ids)
            source, shared = _find_prefix(tokens, rows, decoder)
            logits = decoder.add(tokens, source, shared)
        except _REQUEST_ERRORS as error:
            return BatchPiece(index, None, error)
        return _Row(index, writer, tokens, logits)

    def _fill(self, given: _Given) -> Request:
        if isinstance(given, PromptError):
            raise given
        return dataclasses.replace(given, settings=given.settings.fill(self._defaults))

    def _start(self, request: Request) -> AnswerWriter:
        check_prompt(request.prompt_ids, self._model)
        return AnswerWriter(self._tokenizer, self._model, request)


def _write_all(decoder: BatchDecoder, rows: list[_Row]) -> Iterator[BatchPiece]:
    """Choose a token in every row; the last row takes the place of a row that ended."""
    place = 0
    while place < len(rows):
        row = rows[place]
        error: GlmRuntimeError | None = None
        piece: Piece | None = None
        try:
            piece = row.writer.write(row.logits)
            row.tokens.append(piece.token_id)
        except GlmRuntimeError as failure:
            error = failure
        if piece is not None and piece.finish_reason is None:
            place += 1
        else:
            decoder.remove(place)
            last = rows.pop()
            if last is not row:
                rows[place] = last
        yield BatchPiece(row.index, piece, error)


def _find_prefix(
    tokens: list[int], rows: list[_Row], decoder: BatchDecoder
) -> tuple[int | None, int]:
    """Return the row that shares the longest prefix with these tokens, and its length."""
    limits = [min(length, len(tokens) - 1) for length in decoder.lengths]
    counts = [
        min(count_shared(row.tokens, tokens), limit)
        for row, limit in zip(rows, limits, strict=True)
    ]
    best = max(range(len(rows)), key=counts.__getitem__, default=None)
    if best is None or counts[best] < _SHORTEST_PREFIX:
        return None, 0
    return best, counts[best]
