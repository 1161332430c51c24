"""Folders with an int8 KV cache: the right scales, close logits, and a runtime that keeps codes."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import glm_runtime
from glm_export import ExportOptions, export
from glm_export.calibration.corpus import read_corpus
from glm_runtime import GenerationSettings, Model, Piece, SamplingSettings
from glm_runtime.answering.engine import Engine
from glm_runtime.answering.events import Event, SchedulerLimits, Started
from glm_runtime.answering.generation import Request
from glm_runtime.answering.prefix_files import BLOCK_TOKENS, PrefixFiles
from glm_runtime.graph.decoding import Decoder
from glm_runtime.health import count_cache_bytes
from support.graphs import PlainGraph
from support.tiny_models import TinyShape, build_model, write_checkpoint

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"
GREEDY = SamplingSettings(temperature=0)
TOKENS = 1024  # of the calibration text


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("folders")
    for kind in ("float", "int8"):
        export(
            ExportOptions(
                SAMPLE,
                parent / kind,
                quant="none",
                kv_cache=kind,
                calibration_tokens=TOKENS,
                verify="full",
            )
        )
    return {kind: parent / kind for kind in ("float", "int8")}


@pytest.fixture(scope="module")
def model(folders: dict[str, Path]) -> Model:
    return glm_runtime.load(folders["int8"], device="cpu")


def read_scales(folder: Path) -> dict[str, np.ndarray]:
    stored = onnx.load(folder / "model.onnx", load_external_data=False).graph.initializer
    return {t.name: numpy_helper.to_array(t) for t in stored if t.name.endswith("_scale")}


def widen_pairs(largest: np.ndarray, rotary_dim: int) -> np.ndarray:
    """Both channels of a rotated pair: the larger of the two."""
    pairs = largest[:, :rotary_dim].reshape(len(largest), -1, 2).max(-1).repeat(2, axis=-1)
    return np.concatenate([pairs, largest[:, rotary_dim:]], axis=-1)


def test_scales_reach_a_tenth_beyond_what_the_float_graph_shows(folders: dict[str, Path]) -> None:
    """Keys and values as ONNX Runtime computes them, not as the code under test does.

    Of a pair that rotation turns the scale is that of its radius: at least the larger channel, at
    most sqrt(2) times that.
    """
    windows = read_corpus(None, SAMPLE, 512, TOKENS, 1 << 30).windows
    graph = PlainGraph(folders["float"])
    largest: list[np.ndarray] = []
    for window in windows:
        graph.reset()
        graph.run(window[None], keep=1)
        found = [np.abs(cache).max(axis=(0, 2)) for cache in graph.past]
        largest = [np.maximum(a, b) for a, b in zip(largest or found, found, strict=True)]
    scales = read_scales(folders["int8"])
    assert len(scales) == len(largest) == 8
    for cache, most in zip(graph.caches, largest, strict=True):
        _, layer, part = cache.name.split(".")
        found = scales[f"layers.{layer}.{part}_scale"][0, :, 0] * 127 / 1.1
        if part == "value":
            np.testing.assert_allclose(found, most, rtol=1e-4)
            continue
        turned = most.shape[1] // 2
        ratio = found / widen_pairs(most, turned)
        np.testing.assert_allclose(ratio[:, turned:], 1, rtol=1e-4)
        assert ratio.min() > 0.9999
        assert 1.1 < ratio[:, :turned].max() < 1.4143


def test_keys_at_far_positions_are_not_clipped(folders: dict[str, Path]) -> None:
    """The calibration text again, 1,400 tokens later: rotation has gone on turning pairs.

    In the first layer a token's key depends on nothing but the token and its position.
    """
    windows = read_corpus(None, SAMPLE, 512, TOKENS, 1 << 30).windows
    graph = PlainGraph(folders["int8"])
    for window in windows:
        graph.reset()
        graph.run(np.zeros((1, 1400), np.int64), keep=1)
        graph.run(window[None], keep=1)
        keys = np.abs(graph.past[0][:, :, 1400:].astype(int))
        assert 100 < keys.max() < 120


@pytest.mark.parametrize("method", ["rtn", pytest.param("awq", marks=pytest.mark.exhaustive)])
def test_scales_are_those_of_the_exported_weights(method: str, tmp_path: Path) -> None:
    """AWQ folds scales of o_proj into the value rows: the cache then holds other numbers."""
    options = ExportOptions(
        SAMPLE,
        tmp_path / "int8",
        quant="int4",
        method=method,
        block_size=32,
        kv_cache="int8",
        calibration_tokens=TOKENS,
        verify="none",
    )
    export(options)
    export(dataclasses.replace(options, output=tmp_path / "float", kv_cache="float"))
    graph = PlainGraph(tmp_path / "float")
    graph.run(read_corpus(None, SAMPLE, 512, TOKENS, 1 << 30).windows[:1], keep=1)
    scales = read_scales(tmp_path / "int8")
    for cache, values in zip(graph.caches, graph.past, strict=True):
        _, layer, part = cache.name.split(".")
        if part == "value":
            reach = 127 * scales[f"layers.{layer}.{part}_scale"][0, :, 0]
            clipped = np.abs(values).max(axis=(0, 2)) > 1.05 * reach
            assert clipped.mean() < 0.01


def test_logits_are_close_and_not_the_same(folders: dict[str, Path]) -> None:
    ids = read_corpus(None, SAMPLE, 256, 256, 1 << 30).windows
    exact, coarse = (PlainGraph(folders[kind]).run(ids) for kind in ("float", "int8"))
    error = np.linalg.norm(coarse - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.02


def test_in_place_and_in_chunks_as_in_one_piece(folders: dict[str, Path], model: Model) -> None:
    ids = np.random.Generator(np.random.PCG64(3)).integers(0, 4000, 400)
    expected = PlainGraph(folders["int8"]).run(ids[None])[0]
    decoder = Decoder(model.graph, model.manifest.model)
    places = [0, 130, 131, 132, 300, 399, 400]
    for start, stop in itertools.pairwise(places):
        found = decoder.append(ids[start:stop].tolist())
        np.testing.assert_allclose(found[0], expected[stop - 1], atol=2e-3)


def test_the_runtime_keeps_codes(model: Model, tmp_path: Path) -> None:
    """Saved and restored, forked, rewound: the same answer."""
    settings = GenerationSettings(GREEDY, max_new_tokens=40, is_eos_ignored=True)
    prompt = model.tokenizer.encode("床前明月光，" * 50)
    session = model.new_session()
    first = [piece.token_id for piece in session.generate(prompt, settings)]
    assert {values.dtype for values in session._copy_values().values()} == {np.dtype(np.int8)}
    longer = [*prompt, *first, *model.tokenizer.encode("举头")]
    session.save(tmp_path / "saved")
    expected = [piece.token_id for piece in session.fork().generate(longer, settings)]
    restored = model.new_session()
    restored.restore(tmp_path / "saved")
    assert [piece.token_id for piece in restored.generate(longer, settings)] == expected
    session.rewind(len(prompt) - 3)
    assert [piece.token_id for piece in session.generate(prompt, settings)] == first


def test_rows_of_a_batch_answer_as_alone(model: Model) -> None:
    settings = GenerationSettings(GREEDY, max_new_tokens=30)
    prompts = [
        model.tokenizer.encode(text) for text in ("春风", "In the beginning", "The LORD " * 40)
    ]
    alone = [[piece.token_id for piece in model.generate(ids, settings)] for ids in prompts]
    together: list[list[int]] = [[] for _ in prompts]
    for piece in model.generate_many([Request(ids, settings) for ids in prompts], max_rows=2):
        together[piece.index].append(piece.piece.token_id)
    assert together == alone


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_an_engine_answers_as_alone(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """In memory for 130 tokens requests wait; the last engine reads the files of the second."""
    model = glm_runtime.load(folders[kind], device="cpu")
    settings = GenerationSettings(GREEDY, max_new_tokens=30, is_eos_ignored=True)
    texts = ("春风" * 20, "In the beginning God created", "The LORD " * 40)
    prompts = [model.tokenizer.encode(text) for text in texts]
    alone = [[piece.token_id for piece in model.generate(ids, settings)] for ids in prompts]
    cached = []
    for tokens in (130, 2000, 2000):
        limits = SchedulerLimits(3, 16, count_cache_bytes(model.manifest.model, tokens))
        engine = Engine(model, limits, PrefixFiles(tmp_path, model, 10**8))
        together: list[list[Event]] = [[] for _ in prompts]
        for ids, events in zip(prompts, together, strict=True):
            engine.submit(Request(ids, settings), events.append)
        engine.close(grace_seconds=300)
        found = [[one.token_id for one in events if isinstance(one, Piece)] for events in together]
        assert found == alone
        cached.append([one.cached_tokens for [one, *_] in together if isinstance(one, Started)])
    assert cached[:2] == [[0, 0, 0]] * 2 and max(cached[2]) >= BLOCK_TOKENS


def test_a_cache_that_the_manifest_does_not_promise_is_refused(model: Model) -> None:
    entry = dataclasses.replace(model.manifest.model, cache_dtype="float32")
    with pytest.raises(glm_runtime.FolderError, match=r"is tensor\(int8\) .* where the manifest"):
        glm_runtime.graph.decoding.check_graph(model.graph, entry)


def test_a_channel_that_is_always_zero_keeps_a_scale(tmp_path: Path) -> None:
    """A scale of zero would keep it at zero for good."""
    tiny = build_model(TinyShape(attention_bias=False, partial_rotary_factor=0.5))
    rows = tiny.model.layers[0].self_attn.v_proj.weight
    rows.data[3] = 0
    checkpoint = write_checkpoint(tmp_path / "checkpoint", tiny)
    options = ExportOptions(
        checkpoint, tmp_path / "out", quant="none", kv_cache="int8", calibration_tokens=128
    )
    export(options)
    stored = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False).graph.initializer
    (scale,) = (numpy_helper.to_array(t) for t in stored if t.name == "layers.0.value_scale")
    assert scale[0, 0, 0, 3] == scale.max() > 0
