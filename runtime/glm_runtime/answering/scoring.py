"""Log-probabilities of a given text, which evaluation needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glm_runtime.answering.generation import check_prompt
from glm_runtime.errors import PromptError
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.graph.decoding import PREFILL_CHUNK, Decoder
from glm_runtime.sampling.logprobs import measure_logprobs


@dataclass(frozen=True)
class Score:
    """How likely a continuation is after a prompt.

    Attributes:
        token_ids: the scored tokens.
        logprobs: natural logarithm of the probability of each of them.
        is_greedy: whether greedy decoding would have answered with these tokens.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    is_greedy: bool

    @property
    def total(self) -> float:
        """Natural logarithm of the probability of the whole continuation."""
        return sum(self.logprobs)


def score_tokens(
    decoder: Decoder, model: ModelEntry, prompt: Sequence[int], continuation: Sequence[int]
) -> Score:
    """Measure the log-probabilities of a continuation.

    The probabilities are those of all logits of the model, the padding of the vocabulary included,
    as transformers computes them.

    Args:
        decoder: a decoder without tokens.
        model: the model's entry of the manifest.
        prompt: at least one token.
        continuation: at least one token.

    Raises:
        PromptError: one of them is empty, both are longer than the context, or an id is no token.
        GenerationError: ONNX Runtime failed.
    """
    tokens = [*prompt, *continuation]
    check_prompt(tokens, model)
    if not prompt or not continuation:
        found = "prompt" if not prompt else "continuation"
        raise PromptError(
            f"the {found} has no token where at least one is expected; give a text, for example "
            "the special tokens at the beginning of a text as the prompt."
        )
    logprobs: list[float] = []
    is_greedy = True
    for start in range(0, len(tokens) - 1, PREFILL_CHUNK):
        chunk = tokens[start : min(start + PREFILL_CHUNK, len(tokens) - 1)]
        following = tokens[max(start + 1, len(prompt)) : start + 1 + len(chunk)]
        logits = decoder.append(chunk, max(len(following), 1))
        for row, token in zip(logits, following, strict=False):  # one row more than none
            logprobs.append(measure_logprobs(row, token, 0).chosen)
            is_greedy &= int(np.argmax(row[: model.tokenizer_vocab_size])) == token
    return Score(tuple(continuation), tuple(logprobs), is_greedy)
