"""Tokens that the device chooses itself are those that the host would choose."""

import pytest

from glm_runtime import GenerationSettings, Grammar, Model, Piece, SamplingSettings
from glm_runtime.answering.generation import AnswerWriter, Request, generate
from glm_runtime.answering.speculation import Drafter, PromptLookup
from glm_runtime.errors import GenerationError
from glm_runtime.graph.decoding import Decoder
from glm_runtime.text.answer import PLAIN_TEXT, AnswerForm
from runtime.greedy_answers import GREEDY, PROMPT, THINKING, answer, with_eos


class DeviceDecoder(Decoder):
    """A decoder that chooses tokens itself, as on a CUDA device, here from the CPU's logits."""

    chooses_greedily = True
    worst_logit = 0.0
    chosen = 0

    def choose_next(self, token: int) -> tuple[int, float]:
        self.chosen += 1
        logits = self.append([token])[-1][: self._model.tokenizer_vocab_size]
        return int(logits.argmax()), float(logits.max()) + self.worst_logit


def answer_on_device(
    model: Model,
    settings: GenerationSettings,
    form: AnswerForm = PLAIN_TEXT,
    drafter: Drafter | None = None,
) -> tuple[DeviceDecoder, list[Piece]]:
    entry, ids = model.manifest.model, model.tokenizer.encode(PROMPT)
    request = Request(ids, settings, form, drafter)
    decoder = DeviceDecoder(model.graph, entry)
    writer = AnswerWriter(model.tokenizer, entry, request)
    return decoder, list(generate(decoder, writer, request))


@pytest.mark.parametrize("count", [1, 2, 30])
def test_tokens_that_the_device_chooses_are_the_same_pieces(tiny_model: Model, count: int):
    free = answer(with_eos(tiny_model), max_new_tokens=30)
    for model in (with_eos(tiny_model), with_eos(tiny_model, free[9].token_id)):
        decoder, pieces = answer_on_device(model, GenerationSettings(GREEDY, count))
        assert pieces == answer(model, max_new_tokens=count)
        assert decoder.chosen == len(pieces) - 1


@pytest.mark.parametrize(
    "settings",
    [
        GenerationSettings(SamplingSettings(temperature=1, seed=1), 20),
        GenerationSettings(SamplingSettings(temperature=0, repetition_penalty=1.5), 20),
        GenerationSettings(GREEDY, 20, grammar=Grammar("regex", "[a-f]{9}")),
        GenerationSettings(GREEDY, 20, top_logprobs=2),
        GenerationSettings(GREEDY, 20, max_thinking_tokens=3),
        GenerationSettings(GREEDY, 20, is_eos_ignored=True),
    ],
)
def test_the_device_chooses_only_what_is_plainly_greedy(
    tiny_model: Model, settings: GenerationSettings
):
    """Every other setting changes the choice or needs the logits."""
    model = with_eos(tiny_model, 40)
    form = THINKING if settings.max_thinking_tokens else PLAIN_TEXT
    decoder, pieces = answer_on_device(model, settings, form)
    assert decoder.chosen == 0
    ids = model.tokenizer.encode(PROMPT)
    assert pieces == list(model.new_session().generate(ids, settings, form))


def test_the_device_does_not_choose_where_draft_tokens_are_checked(tiny_model: Model):
    model, settings = with_eos(tiny_model), GenerationSettings(GREEDY, 20)
    decoder, pieces = answer_on_device(model, settings, drafter=PromptLookup())
    assert decoder.chosen == 0
    assert pieces == answer(model, max_new_tokens=20)


@pytest.mark.parametrize("logit", [float("nan"), float("inf")])
def test_broken_logits_on_the_device_are_reported(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch, logit: float
):
    monkeypatch.setattr(DeviceDecoder, "worst_logit", logit)
    with pytest.raises(GenerationError, match=f"the model gave {logit} as its best logit"):
        answer_on_device(with_eos(tiny_model), GenerationSettings(GREEDY, 5))
