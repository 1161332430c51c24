"""Speculative decoding: draft tokens are checked together in one run of the graph.

The token at each position is chosen exactly as it is without drafting, from the logits that the
graph gives there. A draft token saves a run only where it equals that choice, so the answer does
not depend on the drafter; this also holds for sampling, token by token for one seed.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from glm_runtime.arrays import FloatArray
from glm_runtime.errors import FolderError
from glm_runtime.folder.manifest import Manifest
from glm_runtime.graph.decoding import Decoder, count_shared
from glm_runtime.graph.inference import OpenGraph
from glm_runtime.sampling.sampler import find_largest
from glm_runtime.text.tokenizer import TOKENIZER_NAME

_NGRAM = 3  # prompt lookup searches for an earlier occurrence of so many last tokens
_FIRST_LENGTH, _LONGEST_LENGTH = 2, 16
# Cost of one more token in a run, as a share of a run of one token. Measured with 1.5 B
# parameters, int4 block 128, on a CPU: 54 ms for 1 token, 79 for 4, 114 for 8, 181 for 16.
_TOKEN_COST = 0.16
_TRIAL = 4  # runs after which the saved time is compared with the cost
_FIRST_PAUSE, _LONGEST_PAUSE = 32, 1024  # tokens without drafting after a trial that lost time


class Drafter(Protocol):
    """Proposes draft tokens."""

    @property
    def cost(self) -> float:
        """Cost of one draft token, as a share of one run of the model."""

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """Return at most `count` tokens that may follow `tokens`; an empty list is allowed."""


class PromptLookup:
    """Proposes what followed the last tokens where they occurred before.

    Source: Saxena 2023, "Prompt Lookup Decoding"; no second model is needed.
    """

    cost = 0.0

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], int] = {}
        self._indexed = 0

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """Return what followed the latest occurrence; `tokens` must only grow between calls."""
        for end in range(max(_NGRAM, self._indexed), len(tokens)):
            self._places[tuple(tokens[end - _NGRAM : end])] = end
        self._indexed = len(tokens)
        place = self._places.get(tuple(tokens[-_NGRAM:]))
        return [] if place is None else list(tokens[place : place + count])


class DraftModel:
    """Proposes the greedy tokens of a smaller model, which has a KV cache of its own."""

    def __init__(self, graph: OpenGraph, manifest: Manifest, target: Manifest) -> None:
        """Check that both models use the same tokenizer.

        Args:
            graph: the graph of the draft folder.
            manifest: the manifest of the draft folder.
            target: the manifest of the model whose tokens are drafted.

        Raises:
            FolderError: the two folders' tokenizers differ.
        """
        if manifest.files[TOKENIZER_NAME] != target.files[TOKENIZER_NAME]:
            raise FolderError(
                f"the draft {manifest.source.name} has another {TOKENIZER_NAME} than "
                f"{target.source.name}; choose a smaller model of the same family."
            )
        self._graph, self._manifest, self._target = graph, manifest, target
        self._decoder = Decoder(graph, manifest.model)
        self._vocab_size = manifest.model.tokenizer_vocab_size
        self._context_length = manifest.model.context_length
        self._read: list[int] = []
        # The time per token of both models is bound by the bytes that they read.
        self.cost = manifest.size_bytes / target.size_bytes

    def fork(self) -> "DraftModel":
        """Return the same model with a new cache, for another session."""
        return DraftModel(self._graph, self._manifest, self._target)

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """Return the draft model's greedy continuation; nothing beyond its context."""
        count = min(count, self._context_length - len(tokens))
        if count <= 0:
            return []
        shared = min(count_shared(self._read, tokens), len(tokens) - 1)
        self._decoder.truncate(shared)
        logits = self._decoder.prefill(tokens[shared:])
        draft = [find_largest(logits[: self._vocab_size])]
        while len(draft) < count:
            logits = self._decoder.append(draft[-1:])[-1]
            draft.append(find_largest(logits[: self._vocab_size]))
        self._read = [*tokens, *draft[:-1]]
        return draft


@dataclass
class DraftBudget:
    """Number of tokens to draft: more while they are accepted, none while drafting loses time.

    The budget counts tokens and reads no clock, so the same answer always takes the same steps.

    Attributes:
        cost: cost of one draft token, as a share of one run of the model.
        proposed: number of draft tokens so far.
        accepted: number of draft tokens that equalled the chosen token.
        checks: number of runs that contained draft tokens.
    """

    cost: float = 0.0
    proposed: int = 0
    accepted: int = 0
    checks: int = 0
    _length: int = _FIRST_LENGTH
    _pause: int = 0
    _next_pause: int = _FIRST_PAUSE
    _trial: int = 0
    _gain: float = 0.0

    def choose_length(self) -> int:
        """Return how many tokens to draft for the next run."""
        if self._pause:
            self._pause -= 1
            return 0
        return self._length

    def record(self, proposed: int, accepted: int) -> None:
        """Count the draft tokens of one run."""
        self.proposed += proposed
        self.accepted += accepted
        self.checks += 1
        length = 2 * self._length if accepted == proposed else accepted + 1
        self._length = min(length, _LONGEST_LENGTH)
        self._trial += 1
        self._gain += accepted - proposed * (_TOKEN_COST + self.cost)
        if self._trial == _TRIAL:
            self._end_trial()

    def _end_trial(self) -> None:
        if self._gain < 0:
            self._pause = self._next_pause
            self._next_pause = min(2 * self._next_pause, _LONGEST_PAUSE)
            self._length = _FIRST_LENGTH
        else:
            self._next_pause = _FIRST_PAUSE
        self._trial, self._gain = 0, 0.0


class SpeculativeDecoder:
    """Feeds chosen tokens with draft tokens to a decoder and returns logits one row at a time."""

    def __init__(
        self,
        decoder: Decoder,
        drafter: Drafter | None,
        tokens: Sequence[int],
        budget: DraftBudget | None = None,
    ) -> None:
        """Start after the prompt `tokens`, which the decoder has read."""
        self._decoder = decoder
        self._drafter = drafter
        self._tokens = list(tokens) if drafter is not None else []
        self._rows: deque[FloatArray] = deque()  # logits after draft tokens
        self._draft: deque[int] = deque()  # read, but not yet compared with the chosen token
        self._proposed = 0
        self._budget = budget or DraftBudget(drafter.cost if drafter is not None else 0.0)

    def settle(self, token: int) -> None:
        """Take the chosen token; remove the draft from the decoder if it differs."""
        self._tokens.append(token)
        if not self._draft:
            return
        if token != self._draft[0]:
            self._decoder.truncate(self._decoder.length - len(self._draft))
            self._budget.record(self._proposed, self._proposed - len(self._draft))
            self._draft.clear()
            self._rows.clear()
            return
        self._draft.popleft()
        if not self._draft:
            self._budget.record(self._proposed, self._proposed)

    def advance(self, token: int, limit: int) -> FloatArray:
        """Return the logits after the settled token.

        Args:
            token: the settled token.
            limit: the largest number of draft tokens that are useful and fit into the context.

        Returns:
            logits [V], valid until the next call.
        """
        if not self._rows:
            draft = self._propose(limit)
            rows = self._decoder.append((token, *draft), 1 + len(draft))
            self._rows.extend(rows)
            self._draft.extend(draft)
            self._proposed = len(draft)
        return self._rows.popleft()

    def _propose(self, limit: int) -> list[int]:
        if self._drafter is None:
            return []
        count = min(self._budget.choose_length(), limit)
        return self._drafter.propose(self._tokens, count) if count > 0 else []
