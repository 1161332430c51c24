"""The original in our PyTorch decoder against lm-eval's own `hf` on the same checkpoint."""

import random
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra lm-eval)")

import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from glm_export.checkpoint.source_model import open_source
from glm_export.errors import VerificationError
from glm_export.evaluation import original, packed_rows
from glm_export.evaluation.original import OriginalModel
from glm_export.model.layer_stream import LayerStream
from glm_lm_eval.model import GlmOnnx
from glm_lm_eval.options import HarnessOptions
from glm_runtime.folder.manifest import read_manifest
from glm_runtime.progress import Progress, ignore_progress
from support.harness_models import SAMPLE, ask
from support.verse_tasks import read_verses

CLOSE = 1e-3


def open_original(folder: Path, progress: Progress = ignore_progress) -> GlmOnnx:
    source = open_source(SAMPLE)
    stream = LayerStream(source.config, source.read_parameter)
    model = OriginalModel(stream, folder, read_manifest(folder), progress)
    return GlmOnnx(HarnessOptions(folder, batch_size=3), model, progress)


@pytest.fixture(scope="module")
def hf() -> HFLM:
    model = AutoModelForCausalLM.from_pretrained(SAMPLE, dtype=torch.float32)
    return HFLM(model, tokenizer=AutoTokenizer.from_pretrained(SAMPLE))


def list_pairs() -> list[tuple[str, str]]:
    """Continuations of one token and of several, with shared contexts and without."""
    words = " ".join(read_verses()).split()
    draw = random.Random(7)
    pairs = [("In the beginning", f" {word}") for word in ("God", "God created", "the", "God")]
    pairs += [("", "In the beginning"), ("床前明", "月光，疑是地上霜。")]
    for _ in range(12):
        start, length = draw.choice((0, 0, 9, 60)), draw.randrange(1, 60)
        stop = start + length
        pairs.append((" ".join(words[start:stop]), " " + " ".join(words[stop : stop + 6])))
    return pairs


@pytest.fixture(scope="module")
def expected(hf: HFLM) -> tuple[list[tuple[float, bool]], list[float]]:
    whole = ask("loglikelihood_rolling", *((text,) for text in read_verses(3)))
    scores = hf.loglikelihood(ask("loglikelihood", *list_pairs()), True)
    return scores, hf.loglikelihood_rolling(whole, True)


@pytest.mark.parametrize("is_cut", [False, True])
def test_log_likelihoods_are_those_of_hf(
    sample_folder: Path,
    expected: tuple[list[tuple[float, bool]], list[float]],
    monkeypatch: pytest.MonkeyPatch,
    is_cut: bool,
) -> None:
    """With small limits, sequences are cut into many pieces, groups and passes."""
    if is_cut:
        monkeypatch.setattr(packed_rows, "_PIECE_TOKENS", 7)
        monkeypatch.setattr(packed_rows, "_GROUP_TOKENS", 16)
        monkeypatch.setattr(original, "_STATE_BYTES", 200 * 4 * 256)
        monkeypatch.setattr(original, "_LOGIT_ROWS", 5)
    scores, totals = expected
    ours = open_original(sample_folder)
    found = ours.loglikelihood(ask("loglikelihood", *list_pairs()), True)
    assert [one for one, _ in found] == pytest.approx([one for one, _ in scores], abs=CLOSE)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in scores]
    whole = ask("loglikelihood_rolling", *((text,) for text in read_verses(3)))
    assert ours.loglikelihood_rolling(whole, True) == pytest.approx(totals, abs=CLOSE)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_answers_are_those_of_hf(
    sample_folder: Path, hf: HFLM, monkeypatch: pytest.MonkeyPatch, is_streamed: bool
) -> None:
    """With or without all layers in memory, and with room for a few caches only."""
    if is_streamed:
        monkeypatch.setattr(packed_rows, "read_available_memory_bytes", lambda: 0)
        monkeypatch.setattr(original, "_CACHE_BYTES", 1 << 18)
    prompt = "[gMASK]<sop><|user|>\nRecite {}.<|assistant|>"
    wishes = [{"until": ["."], "max_gen_toks": 16}, {"until": [], "max_gen_toks": 5}]
    names = ("Genesis 1:1", "John 11:35", "Psalms 23:1")
    requests = ask(
        "generate_until", *((prompt.format(name), wish) for wish in wishes for name in names)
    )
    found = open_original(sample_folder).generate_until(requests, True)
    assert found == hf.generate_until(requests, True)
    assert any(found)


def test_progress_reaches_the_end(sample_folder: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def note(stage: str, done: int, total: int) -> None:
        seen.setdefault(stage, []).append((done, total))

    ours = open_original(sample_folder, note)
    ours.loglikelihood(ask("loglikelihood", ("In the", " beginning")), True)
    ours.generate_until(ask("generate_until", ("In the", {"max_gen_toks": 4, "until": []})), True)
    for stage in ("original: reading", "original: answering"):
        assert seen[stage][0][0] == 0
        assert seen[stage][-1][0] == seen[stage][-1][1] > 1


def test_nan_is_refused(sample_folder: Path) -> None:
    source = open_source(SAMPLE)

    def read(name: str):
        values = source.read_parameter(name)
        return values * float("nan") if name == "norm.weight" else values

    stream = LayerStream(source.config, read)
    manifest = read_manifest(sample_folder)
    model = OriginalModel(stream, sample_folder, manifest, ignore_progress)
    with pytest.raises(VerificationError, match="the original computes NaN"):
        list(model.score_many([([1], [2])]))
