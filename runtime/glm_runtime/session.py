"""A conversation that keeps its KV cache: what two prompts begin with in common is read once."""

from collections.abc import Generator, Iterator, Sequence

from glm_runtime.decoding import Decoder
from glm_runtime.generation import GenerationSettings, Piece, check_prompt, generate
from glm_runtime.inference import OpenGraph
from glm_runtime.manifest import ModelEntry
from glm_runtime.tokenizer import Tokenizer


class Session:
    """Answers prompt after prompt over one cache; one answer at a time."""

    def __init__(self, graph: OpenGraph, model: ModelEntry, tokenizer: Tokenizer) -> None:
        self._graph = graph
        self._model = model
        self._tokenizer = tokenizer
        self._decoder = Decoder(graph, model)
        self._tokens: list[int] = []
        self._answer = _no_pieces()

    def generate(self, prompt_ids: Sequence[int], settings: GenerationSettings) -> Iterator[Piece]:
        """Answer a prompt, reading only what the cache does not hold yet.

        The iterator may be left at any piece; the next call goes on from what was read.

        Raises:
            PromptError: the prompt is empty, too long, or holds an id that is no token.
        """
        check_prompt(prompt_ids, self._model)
        self._answer.close()  # an answer left half-way must not write into the cache later
        self._answer = self._generate(list(prompt_ids), settings)
        return self._answer

    def reset(self) -> None:
        """Forget the conversation and give its memory back."""
        self._answer.close()
        self._decoder = Decoder(self._graph, self._model)
        self._tokens = []

    def _generate(
        self, prompt_ids: list[int], settings: GenerationSettings
    ) -> Generator[Piece, None, None]:
        known = self._tokens[: self._decoder.length]
        # The last token is read again even if known: its logits are what the answer starts from.
        shared = min(count_shared(known, prompt_ids), len(prompt_ids) - 1)
        self._decoder.truncate(shared)
        self._tokens = list(prompt_ids)
        pieces = generate(self._decoder, self._tokenizer, self._model, prompt_ids, settings)
        for piece in pieces:
            self._tokens.append(piece.token_id)
            yield piece


def _no_pieces() -> Generator[Piece, None, None]:
    yield from ()


def count_shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of what two sequences begin with in common."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))
