"""Layer errors against transformers, whose layers are asked one by one for their outputs."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from glm_export import ExportOptions, export
from glm_export.evaluation.evaluate import evaluate
from glm_export.evaluation.inputs import EvaluationOptions
from glm_export.evaluation.layer_errors import MAX_LAYER_TOKENS, LayerErrors, StateSample
from glm_export.graph.logits_session import GraphSession
from glm_export.graph.observed_graph import observe_states
from glm_runtime.progress import ignore_progress
from support.dequantized import load_dequantized
from support.graphs import PlainGraph
from support.refusals import nothing_left_behind
from support.tiny_models import TinyShape, build_model, build_tokenizer, write_checkpoint

TEXT = "In the beginning was the Word, and the Word was with God. 太初有道，道与神同在。"
WINDOW = 16
LAYERS = 3
SHAPES = {
    "glm4": TinyShape(num_hidden_layers=LAYERS),
    "glm": TinyShape("glm", num_hidden_layers=LAYERS, tie_word_embeddings=True),
}
# Sums in another order: 2^-24 a rounding, some hundred deep, each state having 128 numbers.
FLOAT32_NOISE = 1e-4


def measure(root: Path, folder: Path) -> tuple[float, ...]:
    (root / "text.txt").write_text(TEXT, encoding="utf-8")
    paths = (root / "checkpoint", (folder,), root / "text.txt")
    with nothing_left_behind(root):
        report = evaluate(EvaluationOptions(*paths, WINDOW, has_layers=True), ignore_progress)
    (found,) = report.folders
    assert report.layer_tokens == found.comparison.tokens
    assert found.layer_errors is not None and len(found.layer_errors) == LAYERS + 1
    return found.layer_errors


def export_to(root: Path, checkpoint: str, name: str, **options: object) -> Path:
    if options.get("quant") != "none":
        options["method"] = "rtn"
    export(ExportOptions(root / checkpoint, root / name, verify="none", **options))
    return root / name


def read_states(model: PreTrainedModel) -> list[torch.Tensor]:
    """Outputs of the embedding and of each layer, [tokens, C], by hooks: all windows in a row."""
    ids = build_tokenizer().encode(TEXT).ids
    windows = [ids[start : start + WINDOW] for start in range(0, len(ids), WINDOW)]
    states: list[list[torch.Tensor]] = [[] for _ in range(LAYERS + 1)]
    modules = [model.model.embed_tokens, *model.model.layers]
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, kept=kept: kept.append(out.detach()))
        for module, kept in zip(modules, states, strict=True)
    ]
    with torch.inference_mode():
        for window in windows:
            model(torch.tensor([window]))
    for hook in hooks:
        hook.remove()
    return [torch.cat([state.reshape(-1, 128) for state in kept]) for kept in states]


def compare(model: PreTrainedModel, other: PreTrainedModel) -> list[float]:
    pairs = zip(read_states(model), read_states(other), strict=True)
    return [float((b - a).norm() / a.norm()) for a, b in pairs]


@pytest.fixture(scope="module", params=sorted(SHAPES))
def quantized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random `checkpoint`, and an `int4` export of it whose activations are float32."""
    root = tmp_path_factory.mktemp(request.param)
    write_checkpoint(root / "checkpoint", build_model(SHAPES[request.param]))
    export_to(root, "checkpoint", "int4", quant="int4", accuracy_level=0)
    return root


def test_int4_errors_are_those_of_transformers(quantized: Path) -> None:
    """On the folder's own weights, dequantized by a second implementation."""
    model = AutoModelForCausalLM.from_pretrained(quantized / "checkpoint").eval()
    rounded = copy.deepcopy(model)
    load_dequantized(quantized / "int4", rounded)
    expected = compare(model, rounded)
    assert min(expected) > 0.01
    np.testing.assert_allclose(measure(quantized, quantized / "int4"), expected, rtol=1e-3)


def test_the_logits_stay_as_they_were(quantized: Path) -> None:
    """Bit for bit: what is shown of the graph does not change what it computes."""
    folder = quantized / "int4"
    ids = np.random.default_rng(0).integers(0, 320, (2, 20))
    logits, states = GraphSession(folder, observe_states(folder, LAYERS)).compute_states(ids)
    np.testing.assert_array_equal(logits, GraphSession(folder).compute_logits(ids))
    assert [state.shape for state in states] == [(2, 20, 128)] * (LAYERS + 1)


def test_states_are_of_all_positions_whatever_logits_are_asked_for(
    quantized: Path, tmp_path: Path
) -> None:
    """The graph as a plain caller would run it, with the logits of the last position only."""
    folder, copied = quantized / "int4", tmp_path / "copied"
    shutil.copytree(folder, copied)
    (copied / "model.onnx").write_bytes(observe_states(folder, LAYERS).content)
    graph = PlainGraph(copied)
    graph.outputs = [one.name for one in graph.session.get_outputs()]
    logits = graph.run(np.arange(20)[None], keep=1)
    assert logits.shape[1] == 1
    *_, embedding, _first, _second, last = graph.past  # what follows the logits, as it comes
    assert embedding.shape == last.shape == (1, 20, 128)


def test_a_float_export_loses_nothing_and_one_bad_layer_is_seen(tmp_path: Path) -> None:
    """The second layer's weights are rounded coarsely: the error jumps after it, not before."""
    model = build_model(SHAPES["glm4"])
    write_checkpoint(tmp_path / "sound", model)
    with torch.no_grad():
        for parameter in model.model.layers[1].mlp.parameters():
            parameter.copy_((parameter * 8).round() / 8)
    write_checkpoint(tmp_path / "checkpoint", model)
    folder = export_to(tmp_path, "checkpoint", "folder", quant="none")
    errors = measure(tmp_path, folder)
    assert errors[0] == 0
    assert max(errors) < FLOAT32_NOISE
    (tmp_path / "checkpoint").rename(tmp_path / "coarse")
    (tmp_path / "sound").rename(tmp_path / "checkpoint")
    errors = measure(tmp_path, folder)
    assert errors[0] == 0
    assert errors[1] < FLOAT32_NOISE
    assert min(errors[2:]) > 100 * FLOAT32_NOISE


def test_a_float16_graph(tmp_path: Path) -> None:
    """Its states are float16: rounded to 2^-11, which is 5e-4, at the most."""
    write_checkpoint(tmp_path / "checkpoint", build_model(SHAPES["glm4"]))
    folder = export_to(tmp_path, "checkpoint", "fp16", quant="none", dtype="fp16")
    errors = measure(tmp_path, folder)
    assert 1e-5 < errors[0] < 5e-4
    assert all(error < 1e-2 for error in errors[1:])


# --- the sample of tokens


def windows_of(*lengths: int) -> list[np.ndarray]:
    return [np.zeros(length, dtype=np.int64) for length in lengths]


def test_a_short_text_is_compared_everywhere() -> None:
    sample = StateSample(windows_of(5, 5, 3), 2, 8)
    assert [positions.tolist() for positions in sample.positions] == [
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4],
        [0, 1, 2],
    ]
    assert sample.tokens == 13


def test_a_long_text_is_compared_at_some_places_of_each_window() -> None:
    """Binomial: 1,024 of 4,096 in each of 8 windows; 5 standard deviations are 139."""
    lengths = [4096] * 8
    sample = StateSample(windows_of(*lengths), 2, 8)
    counts = [len(positions) for positions in sample.positions]
    assert sum(counts) == sample.tokens == MAX_LAYER_TOKENS
    assert all(abs(count - 1024) < 139 for count in counts)
    for positions in sample.positions:
        assert positions.tolist() == sorted(set(positions.tolist()))
        assert int(positions.min()) >= 0 and int(positions.max()) < 4096
    again = StateSample(windows_of(*lengths), 2, 8)
    assert all(torch.equal(a, b) for a, b in zip(sample.positions, again.positions, strict=True))


def test_the_states_of_a_large_model_stay_below_a_gibibyte() -> None:
    """GLM-4-9B: 41 states of 4,096 float32 a token."""
    sample = StateSample(windows_of(*[512] * 32), 41, 4096)
    assert sample.tokens == (1 << 30) // (4 * 41 * 4096)


def test_errors_at_sampled_places_are_those_of_the_definition() -> None:
    random = np.random.default_rng(0)
    lengths = (7, 7, 4)
    windows = windows_of(*lengths)
    sample = StateSample(windows, num_states=2, hidden_size=6, max_tokens=9)
    original = [[random.normal(size=(n, 6)).astype(np.float32) for n in lengths] for _ in range(2)]
    folder = [[x + np.float32(0.1) * random.normal(size=x.shape) for x in s] for s in original]
    for group in ([0, 1], [2]):  # as windows of one length pass the original together
        for index in range(2):
            sample.keep(index, torch.tensor(np.stack([original[index][w] for w in group])))
    errors = LayerErrors(sample)
    for window in range(3):
        errors.add(window, [states[window][None].astype(np.float32) for states in folder])
    for index, found in enumerate(errors.summarize()):
        places = [(w, p) for w in range(3) for p in sample.positions[w].tolist()]
        assert len(places) == 9
        kept = np.array([original[index][w][p] for w, p in places])
        other = np.array([folder[index][w][p] for w, p in places])
        assert found == pytest.approx(np.linalg.norm(other - kept) / np.linalg.norm(kept), rel=1e-5)
