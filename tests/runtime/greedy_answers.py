"""Greedy answers of the tiny model, and the plain loop that they are compared with."""

import dataclasses

import numpy as np

from glm_runtime import GenerationSettings, Model, Piece, SamplingSettings
from glm_runtime.answering.generation import AnswerWriter
from glm_runtime.text.answer import AnswerForm
from runtime.test_decoding import run_plainly

GREEDY = SamplingSettings(temperature=0)
THINKING = AnswerForm(is_chat=True, is_thinking=True)
PROMPT = "床前明月光 and the earth"


def plain_greedy(model: Model, prompt_ids: list[int], count: int) -> list[int]:
    """The reference: the whole text through the graph for every token."""
    ids = list(prompt_ids)
    for _ in range(count):
        logits = run_plainly(model, ids, 1)[0][: model.manifest.model.tokenizer_vocab_size]
        ids.append(int(np.argmax(logits)))
    return ids[len(prompt_ids) :]


def answer(model: Model, prompt: str | list[int] = PROMPT, **settings) -> list[Piece]:
    settings.setdefault("sampling", GREEDY)
    return list(model.generate(prompt, GenerationSettings(**settings)))


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def with_eos(model: Model, *eos: int) -> Model:
    entry = dataclasses.replace(model.manifest.model, eos_token_ids=eos)
    return dataclasses.replace(model, manifest=dataclasses.replace(model.manifest, model=entry))


def write_tokens(writer: AnswerWriter, tokens: list[int]) -> list[Piece]:
    """The pieces of an answer whose most likely tokens are these."""
    rows = np.eye(writer._model.vocab_size, dtype=np.float32)
    return [writer.write(rows[token]) for token in tokens]
