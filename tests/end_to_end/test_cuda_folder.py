"""Folders for CUDA on the CPU: the steps on fixed buffers, and the token that the graph chooses.

What a GPU computes is not seen here; that the steps a GPU would take are the same as the ordinary
ones is.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import glm_runtime
from glm_export import ExportOptions, export
from glm_runtime import GenerationSettings, Model, SamplingSettings
from glm_runtime.decoding import Decoder
from support.graphs import PlainGraph

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"
GREEDY = SamplingSettings(temperature=0)
DRAWN = SamplingSettings(temperature=0.9, top_p=0.9, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("cuda") / "out"
    export(ExportOptions(SAMPLE, output, quant="int8", method="rtn", target="cuda", verify="none"))
    return output


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return glm_runtime.load(folder, device="cpu")


@pytest.fixture(scope="module")
def stepping(model: Model) -> Model:
    """The same model, every step of one token on fixed buffers."""
    return dataclasses.replace(model, graph=dataclasses.replace(model.graph, has_fixed_steps=True))


def answer(model: Model, prompt: str, settings: GenerationSettings) -> list[tuple[int, str]]:
    return [(piece.token_id, piece.text) for piece in model.generate(prompt, settings)]


def test_the_graph_names_its_likeliest_token(folder: Path) -> None:
    """Padding ids, though their logits may be larger, are none."""
    graph = PlainGraph(folder)
    ids = np.random.Generator(np.random.PCG64(1)).integers(0, 4000, (2, 7))
    feeds = {
        "input_ids": ids,
        "attention_mask": np.ones((2, 7), np.int64),
        "num_logits_to_keep": np.array([7], np.int64),
    } | {i.name: past for i, past in zip(graph.caches, np.repeat(graph.past, 2, 1), strict=True)}
    logits, token, logit = graph.session.run(["logits", "greedy_token", "greedy_logit"], feeds)
    size = glm_runtime.load(folder, device="cpu").manifest.model.tokenizer_vocab_size
    assert size < logits.shape[-1]
    np.testing.assert_array_equal(token, logits[..., :size].argmax(-1))
    np.testing.assert_array_equal(logit, logits[..., :size].max(-1).astype(np.float32))


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("prompt", ["床前明月光", "Recite John 3:16. " * 60])
def test_fixed_steps_give_the_same_answer(
    prompt: str, sampling: SamplingSettings, model: Model, stepping: Model
) -> None:
    """Over 300 tokens: the cache grows on the way, and with it every buffer's place."""
    settings = GenerationSettings(sampling, max_new_tokens=300, is_eos_ignored=True)
    assert answer(stepping, prompt, settings) == answer(model, prompt, settings)


def test_a_greedy_answer_ends_where_it_should(model: Model, stepping: Model) -> None:
    settings = GenerationSettings(GREEDY, max_new_tokens=200, stop=("and",))
    prompt = "[gMASK]<sop><|user|>\nRecite John 3:16.<|assistant|>\n"
    expected = answer(model, prompt, settings)
    assert answer(stepping, prompt, settings) == expected
    assert len(expected) < 200


def test_steps_and_longer_runs_may_alternate(model: Model, stepping: Model) -> None:
    plain, fixed = (Decoder(m.graph, m.manifest.model) for m in (model, stepping))
    random = np.random.Generator(np.random.PCG64(2))
    for turn in range(120):
        if turn % 7 == 6:
            length = int(random.integers(0, plain.length))
            plain.truncate(length)
            fixed.truncate(length)
        count = int(random.choice([1, 1, 1, 5]))
        tokens = random.integers(0, 4000, count).tolist()
        expected = plain.append(tokens).copy()
        if count == 1 and turn % 2:
            token, logit = fixed.choose_next(tokens[0])
            size = model.manifest.model.tokenizer_vocab_size
            assert (token, logit) == (expected[0, :size].argmax(), expected[0, :size].max())
        else:
            np.testing.assert_array_equal(fixed.append(tokens), expected)


def test_a_full_context_is_an_error_by_name(stepping: Model) -> None:
    limit = stepping.manifest.model.context_length
    decoder = Decoder(stepping.graph, stepping.manifest.model)
    decoder.append([1] * limit)
    with pytest.raises(glm_runtime.PromptError, match=f"{limit + 1} tokens are to be read"):
        decoder.choose_next(1)
