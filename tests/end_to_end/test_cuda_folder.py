"""Folders for CUDA on the CPU: the steps on fixed buffers, and the token that the graph chooses.

What a GPU computes is not seen here; that the steps a GPU would take are the same as the ordinary
ones is.
"""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import glm_runtime
from glm_export import ExportOptions, export
from glm_runtime import GenerationSettings, Model, SamplingSettings
from glm_runtime.answering import generation
from glm_runtime.graph.decoding import Decoder
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


def cut_out(whole: onnx.ModelProto, start: str, ends: list[str]) -> onnx.ModelProto:
    """The nodes between one value and some outputs."""
    nodes, wanted = [], set(ends)
    for node in reversed(whole.graph.node):
        if wanted.intersection(node.output) and start not in node.output:
            nodes.insert(0, node)
            wanted.update(node.input)
    values = {value.name: value for value in whole.graph.output}
    graph = onnx.helper.make_graph(nodes, "end", [values[start]], [values[end] for end in ends])
    # The size of k is declared as 1, which the input keeps.
    return onnx.helper.make_model(graph, opset_imports=whole.opset_import, ir_version=10)


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


def test_a_logit_that_is_no_number_shows_wherever_it_is(folder: Path, tmp_path: Path) -> None:
    """The end of the graph alone, fed with logits."""
    whole = onnx.load(folder / "model.onnx", load_external_data=False)
    path = tmp_path / "end.onnx"
    onnx.save(cut_out(whole, "logits", ["greedy_token", "greedy_logit"]), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    size = next(o for o in whole.graph.output if o.name == "logits").type.tensor_type.shape.dim[2]
    logits = np.random.Generator(np.random.PCG64(3)).normal(0, 4, (1, 1, size.dim_value))
    logits = logits.astype(np.float16)
    assert np.isfinite(session.run(["greedy_logit"], {"logits": logits})[0]).all()
    for place, value in [(0, np.nan), (700, np.nan), (701, np.inf), (1999, -np.inf)]:
        damaged = logits.copy()
        damaged[0, 0, place] = value
        assert not np.isfinite(session.run(["greedy_logit"], {"logits": damaged})[0]).any()


@pytest.mark.parametrize("quant", ["int8", "none"])
def test_no_sum_needs_cudnn(quant: str, folder: Path, tmp_path: Path) -> None:
    """CUDA sums float numbers over the last axis itself, and gives the rest to cuDNN."""
    if quant == "none":
        folder = tmp_path / "out"
        export(ExportOptions(SAMPLE, folder, quant=quant, target="cuda", verify="full"))
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    sums = [node for node in model.graph.node if node.op_type.startswith(("Reduce", "Arg"))]
    assert {node.op_type for node in sums} == {"ReduceSum"}
    assert len(sums) == (2 if quant == "int8" else 2 + 2 * 4)
    sources = {node.output[0]: node for node in model.graph.node}
    for node in sums:
        source = sources[node.input[0]]
        is_float = source.op_type == "Cast" and source.attribute[0].i == onnx.TensorProto.FLOAT
        assert is_float or source.op_type == "Mul"


@pytest.mark.parametrize(
    ("prompt", "sampling"),
    [("床前明月光", DRAWN), ("Recite John 3:16. " * 60, GREEDY)],
    ids=["short, drawn", "long, greedy"],
)
def test_fixed_steps_give_the_same_answer(
    prompt: str,
    sampling: SamplingSettings,
    model: Model,
    stepping: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cache grows on the way, and with it every buffer's place."""
    monkeypatch.setattr(generation, "_RESERVED_TOKENS", 0)
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
    longest = 0
    for turn in range(200):
        if turn % 40 == 39:
            length = int(random.integers(0, plain.length))
            plain.truncate(length)
            fixed.truncate(length)
        count = int(random.choice([1, 1, 1, 15]))
        tokens = random.integers(0, 4000, count).tolist()
        expected = plain.append(tokens).copy()
        if count == 1 and turn % 2:
            token, logit = fixed.choose_next(tokens[0])
            size = model.manifest.model.tokenizer_vocab_size
            assert (token, logit) == (expected[0, :size].argmax(), expected[0, :size].max())
        else:
            np.testing.assert_array_equal(fixed.append(tokens), expected)
        longest = max(longest, fixed.length)
    assert longest > 512  # the cache has grown twice


def test_a_full_context_is_an_error_by_name(stepping: Model) -> None:
    limit = stepping.manifest.model.context_length
    decoder = Decoder(stepping.graph, stepping.manifest.model)
    decoder.append([1] * limit)
    with pytest.raises(glm_runtime.PromptError, match=f"the sequence has {limit + 1} tokens"):
        decoder.choose_next(1)
