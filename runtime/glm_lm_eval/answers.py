"""Requests of `generate_until` as settings of the runtime, and answers as lm-eval expects them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from glm_lm_eval.options import HarnessError, HarnessOptions
from glm_runtime import Model
from glm_runtime.answering.batch import BatchPiece
from glm_runtime.answering.generation import Request
from glm_runtime.answering.keywords import make_settings
from glm_runtime.answering.scoring import Score
from glm_runtime.answering.settings import GenerationSettings, Piece
from glm_runtime.folder.manifest import Manifest
from glm_runtime.text.chat_template import ChatTemplate
from glm_runtime.text.tokenizer import Tokenizer

# What tasks may set besides `until`, `do_sample` and the number of tokens.
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
_SEEDS = 2**31


class EvaluatedModel(Protocol):
    """What computes: a loaded folder (`glm_runtime.Model`), or the original of `glm-eval`."""

    @property
    def manifest(self) -> Manifest:
        """The shape of the model and its special tokens."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of all texts."""

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The chat template, if there is one."""

    def score_many(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> Iterator[tuple[int, Score]]:
        """Measure continuations after prompts; see `Model.score_many`."""

    def generate_many(self, requests: Sequence[Request], max_rows: int) -> Iterator[BatchPiece]:
        """Answer requests, `max_rows` at the same time; see `Model.generate_many`."""


@dataclass(frozen=True)
class Wish:
    """What a request wants of its answer.

    Attributes:
        settings: settings of the runtime.
        until: texts that end the answer and are not part of it.
        stop_ids: ids of the special tokens among them, which have no text.
        max_new_tokens: largest number of tokens.
    """

    settings: GenerationSettings
    until: tuple[str, ...]
    stop_ids: frozenset[int]
    max_new_tokens: int


def read_wish(
    given: Mapping[str, Any], options: HarnessOptions, model: EvaluatedModel, eos: str
) -> Wish:
    """Read the `generation_kwargs` of a task.

    Args:
        given: the keywords.
        options: options of the model.
        model: the model that answers.
        eos: text of the end-of-sequence token, which ends an answer as in lm-eval's `hf`.

    Raises:
        HarnessError: a keyword is not supported.
        SamplingError: a value is outside its range.
    """
    left = dict(normalize_gen_kwargs(dict(given), options.max_gen_toks))
    until = handle_stop_sequences(list(left.pop("until")), eos)
    until = [text for text in until if text]
    max_new_tokens = left.pop("max_gen_toks")
    is_sampled = left.pop("do_sample")
    sampling = {name: left.pop(name) for name in _SAMPLING if name in left}
    if left:
        raise HarnessError(
            f"generation_kwargs has {min(left)!r}, which glm-onnx does not support; leave it out, "
            f"or choose among until, max_gen_toks, do_sample, {', '.join(_SAMPLING)}."
        )
    if is_sampled:
        # lm-eval seeds numpy with its --seed, so that a run can be repeated.
        sampling["seed"] = int(np.random.randint(_SEEDS))
    else:
        sampling["temperature"] = 0.0
    # Reasoning may contain the texts; lm-eval then looks for them in the answer alone.
    stop = () if options.think_end_token is not None else tuple(until)
    settings = make_settings(None, {**sampling, "max_new_tokens": max_new_tokens, "stop": stop})
    found = {model.tokenizer.find_id(text) for text in until}
    ids = frozenset(id_ for id_ in found if id_ is not None)
    return Wish(settings, tuple(until), ids & model.tokenizer.special_ids, max_new_tokens)


class AnswerText:
    """The text of an answer, which grows piece by piece."""

    def __init__(self, wish: Wish, think_end_token: str | None) -> None:
        self._wish = wish
        self._think_end_token = think_end_token
        self._text = ""
        self.is_complete = False

    def add(self, piece: Piece) -> None:
        """Take the next piece; what follows a special token that ends the answer is left out."""
        if self.is_complete:
            return
        if piece.token_id in self._wish.stop_ids:
            self.is_complete = True
            return
        self._text += piece.text
        self.is_complete = piece.finish_reason is not None

    def finish(self) -> str:
        """Return the text as lm-eval's own models cut it."""
        text: str = postprocess_generated_text(
            self._text, list(self._wish.until), self._think_end_token
        )
        return text


def answer_all(
    model: EvaluatedModel,
    requests: Sequence[Request],
    wishes: Sequence[Wish],
    options: HarnessOptions,
) -> Iterator[tuple[int, str]]:
    """Answer requests, `batch_size` of them at the same time.

    Args:
        model: the model that answers.
        requests: the requests; neighbours that begin alike share what is read.
        wishes: what each of them wants.
        options: options of the model.

    Yields:
        The number of a request and its answer, as they end.

    Raises:
        GlmRuntimeError: a request is refused, or ONNX Runtime failed.
    """
    texts = [AnswerText(wish, options.think_end_token) for wish in wishes]
    if options.batch_size == 1 and isinstance(model, Model):
        session = model.new_session()
        for index, request in enumerate(requests):
            for piece in session.generate(request.prompt_ids, request.settings):
                texts[index].add(piece)
                if texts[index].is_complete:
                    break
            yield index, texts[index].finish()
        return
    for one in model.generate_many(requests, options.batch_size):
        if one.error is not None:
            raise one.error
        assert one.piece is not None
        texts[one.index].add(one.piece)
        if one.piece.finish_reason is not None:
            yield one.index, texts[one.index].finish()
