"""Guesses by a smaller model that reads the same tokens."""

from collections.abc import Sequence

from glm_runtime.answering.generation import prefill
from glm_runtime.errors import FolderError
from glm_runtime.folder.manifest import Manifest
from glm_runtime.graph.decoding import Decoder, count_shared
from glm_runtime.graph.inference import OpenGraph
from glm_runtime.sampling.sampler import find_largest

TOKENIZER_NAME = "tokenizer.json"


class DraftModel:
    """Guesses what a draft folder would answer greedily; keeps a cache of its own."""

    def __init__(self, graph: OpenGraph, manifest: Manifest, target: Manifest) -> None:
        """Check that both speak in the same tokens.

        Args:
            graph: of the draft folder.
            manifest: of the draft folder.
            target: of the folder whose tokens are guessed.

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
        # Both are bound by the bytes they read for a token.
        self.cost = manifest.size_bytes / target.size_bytes

    def fork(self) -> "DraftModel":
        """The same model with a cache of its own, for another session."""
        return DraftModel(self._graph, self._manifest, self._target)

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """What the draft model would go on with; nothing beyond its context."""
        count = min(count, self._context_length - len(tokens))
        if count <= 0:
            return []
        shared = min(count_shared(self._read, tokens), len(tokens) - 1)
        self._decoder.truncate(shared)
        logits = prefill(self._decoder, tokens[shared:])
        guesses = [find_largest(logits[: self._vocab_size])]
        while len(guesses) < count:
            logits = self._decoder.append(guesses[-1:])[-1]
            guesses.append(find_largest(logits[: self._vocab_size]))
        self._read = [*tokens, *guesses[:-1]]
        return guesses
