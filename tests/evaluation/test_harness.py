"""glm-onnx against lm-eval's own `hf`: every number, for every kind of request.

Both compute in float32 with the same weights. A log-probability then differs by the order of sums,
about 1e-5 for a token of the sample; a sum over a text is held to 1e-3.
"""

import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra lm-eval)")

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from glm_lm_eval.model import GlmOnnx
from support.harness_models import ask, open_ours, open_theirs
from support.verse_tasks import CLOZE, RECITE, TASKS, WHOLE, read_verses

CLOSE = 1e-3
PAIRS = [
    ("In the beginning", " God created the heaven"),
    ("In the beginning ", "God created"),  # the blank moves to the continuation
    ("In the beginning  \n", "God"),
    ("In the beginning", "s"),  # may be one token with what is before
    ("", "In the beginning"),
    ("", " And"),
    ("", "<|user|>In the"),  # the prefix token itself begins the continuation
    ("<|user|>", "In the beginning"),
    ("[gMASK]<sop>", "In the beginning God"),
    ("床前", "明月光"),
    ("床前明", "月光，疑是地上霜。"),
    ("床", "🜁"),  # several tokens of one character
    ("In the beginning", " God created the heaven and the earth."),
    ("In the beginning", " God created the heaven"),  # twice
]


def test_log_likelihoods_are_those_of_hf(ours: GlmOnnx, theirs: HFLM) -> None:
    requests = ask("loglikelihood", *PAIRS)
    compare(ours.loglikelihood(requests, True), theirs.loglikelihood(requests, True))


def test_random_pairs_that_share_beginnings(ours: GlmOnnx, theirs: HFLM) -> None:
    words = " ".join(read_verses()).split()
    draw = random.Random(5)
    pairs = []
    for _ in range(40):
        start, length = draw.choice((0, 0, 9, 60)), draw.randrange(1, 60)
        stop = start + length
        pairs.append((" ".join(words[start:stop]), " " + " ".join(words[stop : stop + 6])))
    requests = ask("loglikelihood", *pairs)
    compare(ours.loglikelihood(requests, True), theirs.loglikelihood(requests, True))


def test_contexts_that_are_too_long_lose_their_beginning(folder: Path) -> None:
    """Around the limit: one token before it, at it, and after it."""
    ours, theirs = open_ours(folder, max_length=24), open_theirs(folder, max_length=24)
    ids = ours.tok_encode(" ".join(read_verses()))
    texts = [ours.model.tokenizer.decode(ids[:count]) for count in (18, 19, 20, 21, 22, 60)]
    requests = ask("loglikelihood", *((text, " God created") for text in texts))
    assert len(ours.tok_encode(" God created")) < 24
    compare(ours.loglikelihood(requests, True), theirs.loglikelihood(requests, True))
    whole = ask("loglikelihood_rolling", *((text,) for text in texts))
    found = ours.loglikelihood_rolling(whole, True)
    assert found == pytest.approx(theirs.loglikelihood_rolling(whole, True), abs=CLOSE)


def test_rolling_windows(ours: GlmOnnx, theirs: HFLM) -> None:
    texts = [*read_verses(3), "", "床前明月光", "<|user|>In the beginning"]
    requests = ask("loglikelihood_rolling", *((text,) for text in texts))
    found = ours.loglikelihood_rolling(requests, True)
    assert found == pytest.approx(theirs.loglikelihood_rolling(requests, True), abs=CLOSE)
    assert found[3] == 0


@pytest.mark.parametrize("batch_size", [1, 3])
def test_answers_are_those_of_hf(folder: Path, theirs: HFLM, batch_size: int) -> None:
    ours = open_ours(folder, batch_size=batch_size)
    prompt = "[gMASK]<sop><|user|>\nRecite {}.<|assistant|>"
    names = ("Genesis 1:1", "John 11:35", "Psalms 23:1")
    wishes: list[dict[str, Any]] = [
        {"until": ["."], "max_gen_toks": 16},
        {"until": "the", "max_new_tokens": 16},
        {"until": [], "max_gen_toks": 5, "do_sample": False, "temperature": 0.0},
        {"until": ["\n\n"], "max_gen_toks": 24},
        {"until": ["zzz"], "do_sample": False, "temperature": 0.7, "max_gen_toks": 12},
    ]
    requests = ask(
        "generate_until",
        *((prompt.format(name), wish) for wish in wishes for name in names),
        ("In the beginning", {"until": [" the "], "max_gen_toks": 12}),
    )
    found = ours.generate_until(requests, True)
    # One at a time: in a batch, hf pads on the left, which changes its own last bits.
    assert found == theirs.generate_until(requests, True)
    assert any(found)


def test_a_long_question_leaves_room_for_the_answer(folder: Path) -> None:
    ours, theirs = open_ours(folder, max_length=40), open_theirs(folder, max_length=40)
    requests = ask(
        "generate_until", *((verse, {"max_gen_toks": 8, "until": []}) for verse in read_verses(3))
    )
    assert ours.generate_until(requests, True) == theirs.generate_until(requests, True)


def test_chat_templates_are_rendered_as_by_transformers(ours: GlmOnnx, theirs: HFLM) -> None:
    history = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Recite Genesis 1:1."},
        {"role": "assistant", "content": "In the beginning"},
    ]
    for messages, is_next in ((history[:2], True), (history[1:2], True), (history, False)):
        expected = theirs.apply_chat_template(messages, is_next)
        assert ours.apply_chat_template(messages, is_next) == expected
    assert ours.chat_template(True) == theirs.chat_template(True)
    assert ours.chat_template(False) is None


@pytest.mark.parametrize("applies_template", [False, True])
def test_whole_evaluations_agree(
    ours: GlmOnnx, theirs: HFLM, tasks: Path, applies_template: bool
) -> None:
    """Every response of every document, and the same figures at the end."""
    found, expected = (evaluate(one, tasks, applies_template) for one in (ours, theirs))
    for name in TASKS:
        compare_samples(found["samples"][name], expected["samples"][name])
        for metric, value in expected["results"][name].items():
            if isinstance(value, float):
                assert found["results"][name][metric] == pytest.approx(value, rel=1e-3), metric
    assert found["config"]["model_sha"] == ours.model.manifest.fingerprint
    assert len(found["samples"][CLOZE]) == len(found["samples"][WHOLE]) == 8
    assert len(found["samples"][RECITE]) == 3


def evaluate(model: Any, tasks: Path, applies_template: bool, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model,
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        apply_chat_template=applies_template,
        bootstrap_iters=0,
        **options,
    )
    return found


def compare(found: list[tuple[float, bool]], expected: list[tuple[float, bool]]) -> None:
    assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in expected]
    assert [one for one, _ in found] == pytest.approx([one for one, _ in expected], abs=CLOSE)


def compare_samples(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one["arguments"] == other["arguments"]
        for response, wanted in zip(flatten(one["resps"]), flatten(other["resps"]), strict=True):
            if isinstance(wanted, float):
                assert response == pytest.approx(wanted, abs=CLOSE)
            else:
                assert response == wanted


def flatten(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [part for one in value for part in flatten(one)]
    return [value]
