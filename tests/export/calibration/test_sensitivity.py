"""Sensitivity: gradients against transformers' own autograd, costs against KL measured directly."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from glm_export.calibration import gradients, sensitivity
from glm_export.calibration.gradients import draw_head_gradients, pull_back, pull_back_norm
from glm_export.calibration.sensitivity import Sensitivity, measure_sensitivity
from glm_export.checkpoint.source_model import open_source
from glm_export.model.architectures import DecoderConfig
from glm_export.model.layer_stream import LayerStream, ReadParameter
from glm_quantize import FloatArray, Scheme, SchemeError, dequantize
from glm_quantize.methods.rtn import round_to_nearest
from glm_quantize.methods.rtn_search import search_scales
from glm_runtime.arrays import TokenArray
from support.tiny_models import TinyShape, build_model, write_checkpoint

INT4_FINE, INT4 = Scheme(4, 32, False), Scheme(4, 128, True)
INT8, INT2 = Scheme(8, 128, False), Scheme(2, 32, False)
SHAPES = {
    "glm4": TinyShape(num_hidden_layers=3),
    "glm-tied": TinyShape("glm", tie_word_embeddings=True, attention_bias=False),
}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def ignore(_weights: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Tiny:
    model: PreTrainedModel
    config: DecoderConfig
    read: ReadParameter
    shapes: dict[str, tuple[int, ...]]

    @property
    def matrices(self) -> list[str]:
        return [name for name, shape in self.shapes.items() if len(shape) == 2]

    def measure(
        self, windows: TokenArray, *schemes: Scheme, progress: Callable[[int], None] = ignore
    ) -> Sensitivity:
        candidates = dict.fromkeys(self.matrices, schemes)
        return measure_sensitivity(self.config, self.read, windows, candidates, progress)


def build(folder: Path, shape: TinyShape) -> Tiny:
    model = build_model(shape)
    source = open_source(write_checkpoint(folder, model))
    shapes = {name: where.shape for name, where in source.parameters.items()}
    return Tiny(model, source.config, source.read_parameter, shapes)


def draw_windows(count: int, length: int, vocabulary: int = 320) -> TokenArray:
    return np.random.default_rng(1).integers(0, vocabulary, (count, length))


def quantize(weight: FloatArray, scheme: Scheme) -> FloatArray:
    method = round_to_nearest if scheme.bits == 8 else search_scales
    return dequantize(method(weight, scheme))


def measure_directly(tiny: Tiny, windows: TokenArray, name: str, scheme: Scheme) -> float:
    """KL of the whole decoder with one parameter replaced."""

    def read(wanted: str) -> FloatArray:
        weight = tiny.read(wanted)
        return quantize(weight, scheme) if wanted == name else weight

    log_p, log_q = (
        torch.log_softmax((d.hidden_states(windows) @ d.read_head().T).double(), dim=-1)
        for d in (LayerStream(tiny.config, tiny.read), LayerStream(tiny.config, read))
    )
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


def differentiate(tiny: Tiny, windows: TokenArray, labels: Tensor) -> dict[str, Tensor]:
    """Transformers' gradients of the summed loss at the outputs of its modules, [B, S, N] each."""
    outputs: dict[str, Tensor] = {}
    modules = dict(tiny.model.named_modules())
    names = ["embed_tokens"]
    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"):
        names.append(f"layers.1.{part}")
    names += ["layers.1.mlp.gate_up_proj", "layers.1.mlp.down_proj"]

    def keep(name: str, _module: object, _inputs: object, output: Tensor) -> None:
        outputs[name] = output

    handles = [modules[f"model.{n}"].register_forward_hook(partial(keep, n)) for n in names]
    logits = tiny.model(torch.from_numpy(windows)).logits
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    found = torch.autograd.grad(loss, [outputs[name] for name in names])
    for handle in handles:
        handle.remove()
    return dict(zip(names, found, strict=True))


def draw_labels(tiny: Tiny, windows: TokenArray) -> Tensor:
    """The labels [K, B, S] that measure_sensitivity draws."""
    reference = LayerStream(tiny.config, tiny.read)
    hidden = reference.hidden_states(windows).clone().flatten(0, 1)
    drawn = draw_head_gradients(
        hidden, reference.read_head(), sensitivity._LABEL_DRAWS, sensitivity._SEED
    )
    return drawn.labels.reshape(-1, *windows.shape)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert float((found - expected).norm()) <= 1e-4 * float(expected.norm())


@each_shape
def test_gradients_are_those_of_transformers(tmp_path: Path, shape: TinyShape) -> None:
    tiny, windows = build(tmp_path, shape), draw_windows(3, 17)
    stream = LayerStream(tiny.config, tiny.read)
    states = list(stream.run(windows))
    head = stream.read_head()
    drawn = draw_head_gradients(stream.normalise(states[-1]).flatten(0, 1), head, 2, seed=5)
    at_input = pull_back_norm(stream, states[-1], drawn.gradients.reshape(2, *states[-1].shape))
    traces = {}
    for index in reversed(range(tiny.config.num_layers)):
        layer = stream.load_layer(index)
        traces[index], at_input = pull_back(stream, layer, states[index], at_input)
    for draw, labels in enumerate(drawn.labels.reshape(2, *windows.shape)):
        expected = differentiate(tiny, windows, labels)
        found = {
            name: torch.stack([window[name].gradients[draw] for window in traces[1]])
            for name in ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
        }
        parts = [expected[f"layers.1.self_attn.{name}_proj"] for name in "qkv"]
        assert_close(at_input[draw], expected["embed_tokens"])
        assert_close(found["qkv_proj"], torch.cat(parts, dim=-1))
        assert_close(found["o_proj"], expected["layers.1.self_attn.o_proj"])
        assert_close(found["gate_up_proj"], expected["layers.1.mlp.gate_up_proj"])
        assert_close(found["down_proj"], expected["layers.1.mlp.down_proj"])


@each_shape
def test_embedding_moments_are_those_of_transformers(tmp_path: Path, shape: TinyShape) -> None:
    tiny, windows = build(tmp_path, shape), draw_windows(2, 13)
    found = torch.from_numpy(tiny.measure(windows).embedding_moments)
    draws = [
        differentiate(tiny, windows, labels)["embed_tokens"].flatten(0, 1)
        for labels in draw_labels(tiny, windows)
    ]
    expected = torch.stack([rows.T @ rows / len(rows) for rows in draws]).mean(0)
    if shape.tie_word_embeddings:
        expected += average_head_inputs(tiny, windows)
    assert_close(found, expected)


@torch.no_grad()
def average_head_inputs(tiny: Tiny, windows: TokenArray) -> torch.Tensor:
    hidden = tiny.model.model(torch.from_numpy(windows)).last_hidden_state.flatten(0, 1)
    return hidden.T @ hidden / len(hidden)


def test_labels_are_drawn_from_the_models_distribution() -> None:
    """Counts of 40,000 draws, each within 5 standard deviations: a false alarm in 50,000 runs."""
    generator = torch.Generator().manual_seed(0)
    hidden, head = torch.randn(1, 8, generator=generator), torch.randn(32, 8, generator=generator)
    labels = draw_head_gradients(hidden.expand(20_000, 8), head, 2, seed=3).labels
    p = torch.softmax(hidden[0] @ head.T, dim=-1)
    counts = torch.bincount(labels.flatten(), minlength=32)
    assert labels.shape == (2, 20_000)
    assert ((counts - 40_000 * p).abs() <= 5 * (40_000 * p * (1 - p)).sqrt()).all()
    assert 0 < (labels[0] == labels[1]).float().mean() < 1


def rank(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.argsort(np.argsort(values)).astype(np.float64)


@each_shape
def test_costs_predict_the_divergence(tmp_path: Path, shape: TinyShape) -> None:
    """By whole decoders with one matrix replaced; ratios of 0.94 to 1.14 were seen."""
    tiny, windows = build(tmp_path, shape), draw_windows(16, 32)
    schemes = (INT4_FINE, INT4, INT8)
    costs = tiny.measure(windows, *schemes).costs
    pairs = [
        (costs[name][scheme], measure_directly(tiny, windows, name, scheme))
        for name in tiny.matrices
        for scheme in schemes
    ]
    predicted, measured = np.array(pairs).T
    assert np.corrcoef(rank(predicted), rank(measured))[0, 1] > 0.98
    ratios = predicted / measured
    assert 0.9 < np.median(ratios) < 1.1
    assert 0.6 < ratios.min() < ratios.max() < 1.6


def test_an_untied_heads_cost_is_the_divergence_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for 2 bits, which are no small change, and a few positions at a time."""
    tiny, windows = build(tmp_path, TinyShape(num_hidden_layers=1)), draw_windows(3, 11)
    monkeypatch.setattr(gradients, "_LOGITS_AT_ONCE", 5 * 320)
    costs = tiny.measure(windows, INT2, INT8).costs["lm_head.weight"]
    for scheme, cost in costs.items():
        expected = measure_directly(tiny, windows, "lm_head.weight", scheme)
        assert cost == pytest.approx(expected, rel=1e-3)


def test_a_tied_heads_cost_is_the_sum_of_both_uses(tmp_path: Path) -> None:
    """Against an untied model whose head is a copy of its embedding."""
    tiny, windows = build(tmp_path, SHAPES["glm-tied"]), draw_windows(3, 11)

    def read(name: str) -> FloatArray:
        return tiny.read("embed_tokens.weight" if name == "lm_head.weight" else name)

    candidates = dict.fromkeys([*tiny.matrices, "lm_head.weight"], (INT4,))
    untied = replace(tiny.config, is_tied=False)
    apart = measure_sensitivity(untied, read, windows, candidates, ignore).costs
    together = tiny.measure(windows, INT4).costs["embed_tokens.weight"]
    both = apart["embed_tokens.weight"][INT4] + apart["lm_head.weight"][INT4]
    assert together[INT4] == pytest.approx(both, rel=1e-9)


def test_a_sample_of_outputs_costs_about_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter or less of the rows: the mean over all linears is kept, each within a factor."""
    tiny, windows = build(tmp_path, TinyShape()), draw_windows(8, 32)
    every = tiny.measure(windows, INT4).costs
    monkeypatch.setattr(gradients, "_MOST_OUTPUTS", 32)
    some = tiny.measure(windows, INT4).costs
    linears = [name for name in tiny.matrices if name.startswith("layers.")]
    ratios = np.array([some[name][INT4] / every[name][INT4] for name in linears])
    assert (ratios != 1).all()
    assert 0.8 < ratios.mean() < 1.25 and 0.4 < ratios.min() < ratios.max() < 2.5


@each_shape
def test_one_layer_is_in_memory_at_a_time(tmp_path: Path, shape: TinyShape) -> None:
    """Whatever is alive when a parameter is read belongs to the same layer, norm or table."""
    tiny = build(tmp_path, shape)
    alive: dict[int, str] = {}
    reads: list[str] = []

    def read(name: str) -> FloatArray:
        values = tiny.read(name)
        stage = ".".join(name.split(".")[:2])
        others = set(alive.values()) - {stage}
        assert not others - {"lm_head.weight", "embed_tokens.weight"}, (name, others)
        assert not (others and name.startswith("layers.")), (name, others)
        alive[len(reads)] = stage
        weakref.finalize(values, alive.pop, len(reads))
        reads.append(name)
        return values

    candidates = dict.fromkeys(tiny.matrices, (INT4, INT8))
    found = measure_sensitivity(tiny.config, read, draw_windows(2, 9), candidates, ignore)
    assert not alive
    assert set(reads) == set(tiny.shapes) and max(map(reads.count, reads)) == 2
    assert found.costs == tiny.measure(draw_windows(2, 9), INT4, INT8).costs


def test_costs_come_in_the_order_of_the_candidates(tmp_path: Path) -> None:
    tiny, windows = build(tmp_path, SHAPES["glm-tied"]), draw_windows(2, 9)
    candidates = {
        "layers.1.o_proj.weight": (INT8, INT4),
        "embed_tokens.weight": (INT4_FINE,),
        "layers.0.down_proj.weight": (),
    }
    found = measure_sensitivity(tiny.config, tiny.read, windows, candidates, ignore).costs
    assert {name: tuple(costs) for name, costs in found.items()} == candidates
    assert list(found) == list(candidates)
    every = tiny.measure(windows, INT4_FINE, INT4, INT8).costs
    for name, costs in found.items():
        assert all(every[name][scheme] == cost for scheme, cost in costs.items())


@each_shape
def test_progress_counts_every_weight(tmp_path: Path, shape: TinyShape) -> None:
    """All but the last norm's, once forward and twice backward, with a step for each layer."""
    tiny, steps = build(tmp_path, shape), list[int]()
    tiny.measure(draw_windows(1, 4), progress=steps.append)
    total = sum(int(np.prod(of)) for name, of in tiny.shapes.items() if name != "norm.weight")
    assert sum(steps) == 3 * total
    assert len(steps) == 2 * (1 + tiny.config.num_layers) + (not tiny.config.is_tied)


def test_a_block_size_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    tiny = build(tmp_path, TinyShape())
    candidates = {"layers.0.o_proj.weight": [Scheme(4, 256, True)]}
    with pytest.raises(SchemeError, match="row of 128 weights does not divide into blocks of 256"):
        measure_sensitivity(tiny.config, tiny.read, draw_windows(1, 4), candidates, ignore)
