"""The original checkpoint as a model that lm-eval's tasks can ask, in float32 by PyTorch.

It reads every checkpoint that the exporter reads, also quantized ones and those with adapters.
Tokens, chat template and sampling settings are those of an exported folder, so that folders and
original get the same requests. Read `packed_rows.py` before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from glm_export.errors import VerificationError
from glm_export.evaluation.packed_rows import PackedRows, TokenPiece, cut_pieces
from glm_export.model.layer_stream import LayerStream
from glm_runtime.answering.batch import BatchPiece
from glm_runtime.answering.generation import AnswerWriter, Request, check_prompt
from glm_runtime.answering.scoring import Score
from glm_runtime.answering.settings import read_defaults
from glm_runtime.folder.manifest import Manifest
from glm_runtime.graph.decoding import count_shared
from glm_runtime.progress import Advance, Progress, track_stage
from glm_runtime.text.chat_template import read_chat_template
from glm_runtime.text.tokenizer import read_tokenizer

_STATE_BYTES = 1 << 30  # of hidden states in one pass
_CACHE_BYTES = 2 << 30  # of keys and values of the answers that are written together
_LOGIT_ROWS = 256  # positions whose logits are in memory at once


@dataclass(frozen=True)
class _Sequence:
    """A prompt with its continuation: `index` of the pair, all tokens, and the first to read."""

    index: int
    tokens: tuple[int, ...]
    num_scored: int
    start: int

    @property
    def num_read(self) -> int:
        """Number of tokens to compute; the last one predicts nothing."""
        return len(self.tokens) - 1 - self.start


class OriginalModel:
    """The original, with the tokenizer and the chat template of a folder.

    Args:
        stream: reads the original's layers.
        folder: an exported folder of this checkpoint.
        manifest: manifest of the folder.
        progress: called with (stage, done, total).
    """

    def __init__(
        self, stream: LayerStream, folder: Path, manifest: Manifest, progress: Progress
    ) -> None:
        self.manifest = manifest
        self.tokenizer = read_tokenizer(folder)
        self.chat_template = read_chat_template(folder)
        self._defaults = read_defaults(folder)
        self._stream = stream
        self._progress = progress
        self._advance: Advance = _ignore
        self._rows = PackedRows(stream, self._count)
        self._head: Tensor | None = None

    def close(self) -> None:
        """Free the memory of the weights."""
        self._rows.drop_weights()
        self._head = None

    def score_many(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> Iterator[tuple[int, Score]]:
        """Measure continuations after prompts; see `glm_runtime.Model.score_many`.

        Raises:
            VerificationError: the original computes NaN.
        """
        passes = list(self._plan(pairs))
        tokens = sum(one.num_read for sequences in passes for one in sequences)
        total = tokens * self._stream.config.num_layers
        self._advance = track_stage(self._progress, "original: reading", total)
        for sequences in passes:
            pieces: list[TokenPiece] = []
            for one in sequences:
                pieces += cut_pieces(one.tokens[:-1], one.start)
            yield from self._score(sequences, self._rows.read(pieces))
        self._advance = _ignore

    def generate_many(self, requests: Sequence[Request], max_rows: int) -> Iterator[BatchPiece]:
        """Answer requests, as many at the same time as the memory of their caches allows.

        Args:
            requests: the requests.
            max_rows: the largest number of answers at the same time.

        Yields:
            Pieces as `glm_runtime.Model.generate_many` does.

        Raises:
            GlmRuntimeError: a request is refused, or the original computes NaN.
        """
        writers = []
        for request in requests:
            check_prompt(request.prompt_ids, self.manifest.model)
            settings = request.settings.fill(self._defaults)
            filled = replace(request, settings=settings)
            writers.append(AnswerWriter(self.tokenizer, self.manifest.model, filled))
        self._rows.keep_weights()
        total = sum(writer.remaining for writer in writers)
        advance = track_stage(self._progress, "original: answering", total)
        for group in self._group(requests, writers, max_rows):
            yield from self._answer(group, requests, writers, advance)

    def _answer(
        self,
        group: Sequence[int],
        requests: Sequence[Request],
        writers: Sequence[AnswerWriter],
        advance: Advance,
    ) -> Iterator[BatchPiece]:
        states, caches = self._rows.start([requests[index].prompt_ids for index in group])
        rows = list(zip(group, caches, strict=True))
        while rows:
            logits = self._compute_logits(states).numpy()
            going, tokens = [], []
            for (index, cache), row in zip(rows, logits, strict=True):
                left = writers[index].remaining
                piece = writers[index].write(row)
                if piece.finish_reason is None:
                    going.append((index, cache))
                    tokens.append(piece.token_id)
                advance(1 if piece.finish_reason is None else left)
                yield BatchPiece(index, piece)
            rows = going
            if rows:
                states = self._rows.step(tokens, [cache for _, cache in rows])

    def _group(
        self, requests: Sequence[Request], writers: Sequence[AnswerWriter], max_rows: int
    ) -> Iterator[list[int]]:
        config = self._stream.config
        token_bytes = 4 * 2 * config.num_layers * config.num_kv_heads * config.head_dim
        group: list[int] = []
        size = 0
        for index, (request, writer) in enumerate(zip(requests, writers, strict=True)):
            own = token_bytes * (len(request.prompt_ids) + writer.remaining)
            if group and (len(group) == max_rows or size + own > _CACHE_BYTES):
                yield group
                group, size = [], 0
            group.append(index)
            size += own
        if group:
            yield group

    def _plan(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> Iterator[list[_Sequence]]:
        """Yield the sequences of each pass, sorted, so that neighbours share their beginnings."""
        all_tokens = [(*prompt, *continuation) for prompt, continuation in pairs]
        limit = max(1, _STATE_BYTES // (4 * self._stream.config.hidden_size))
        found: list[_Sequence] = []
        size = 0
        for index in sorted(range(len(pairs)), key=lambda index: all_tokens[index]):
            tokens, continuation = all_tokens[index], pairs[index][1]
            one = _Sequence(index, tokens, len(continuation), 0)
            if found:
                # What is scored is computed again, also where two sequences share it.
                shared = count_shared(found[-1].tokens[:-1], tokens)
                one = replace(one, start=min(shared, len(tokens) - len(continuation) - 1))
            if found and size + one.num_read > limit:
                yield found
                found, size, one = [], 0, replace(one, start=0)
            found.append(one)
            size += one.num_read
        if found:
            yield found

    def _score(self, sequences: Sequence[_Sequence], states: Tensor) -> Iterator[tuple[int, Score]]:
        places: list[int] = []
        targets: list[int] = []
        end = 0
        for one in sequences:
            end += one.num_read
            places += range(end - one.num_scored, end)
            targets += one.tokens[-one.num_scored :]
        logprobs, are_best = self._measure(states[torch.tensor(places)], torch.tensor(targets))
        start = 0
        for one in sequences:
            stop = start + one.num_scored
            scored = one.tokens[-one.num_scored :]
            yield one.index, Score(scored, tuple(logprobs[start:stop]), all(are_best[start:stop]))
            start = stop

    @torch.inference_mode()
    def _measure(self, states: Tensor, targets: Tensor) -> tuple[list[float], list[bool]]:
        """Return log-probability of each target, and whether it is the most likely token."""
        logprobs: list[float] = []
        are_best: list[bool] = []
        for rows, wanted in zip(
            torch.split(states, _LOGIT_ROWS), torch.split(targets, _LOGIT_ROWS), strict=True
        ):
            logits = self._compute_logits(rows)
            found = torch.log_softmax(logits, -1).gather(1, wanted[:, None])[:, 0]
            if bool(found.isnan().any()):
                raise VerificationError(
                    "the original computes NaN; check that the checkpoint's weights are finite."
                )
            best = logits[:, : self.manifest.model.tokenizer_vocab_size].argmax(-1)
            logprobs += found.tolist()
            are_best += (best == wanted).tolist()
        return logprobs, are_best

    def _compute_logits(self, states: Tensor) -> Tensor:
        """Compute [rows, V] from normalized states [rows, C]."""
        if self._head is None:
            self._head = self._stream.read_head()
        return states @ self._head.T

    def _count(self, count: int) -> None:
        self._advance(count)


def _ignore(_amount: int) -> None:
    """Count nothing."""
