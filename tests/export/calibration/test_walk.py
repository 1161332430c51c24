"""Each matrix is calibrated on what the quantized ones before it give; nothing is done twice."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from glm_export.calibration.state import CalibrationState, open_state
from glm_export.calibration.walk import Walk, WalkTask
from glm_export.checkpoint.checkpoint import open_checkpoint
from glm_export.checkpoint.parameters import ParameterRows
from glm_export.model.architectures import find_architecture
from glm_quantize import (
    FloatArray,
    InputStatistics,
    Method,
    QuantizedRows,
    Scheme,
    SingularStatisticsError,
    dequantize,
)
from glm_quantize.methods.rtn import round_to_nearest
from support.tiny_models import TinyShape, build_model, write_checkpoint

SCHEME = Scheme(4, 32, is_symmetric=False)
LINEARS = {
    "qkv_proj": "self_attn.q_proj",
    "o_proj": "self_attn.o_proj",
    "gate_up_proj": "mlp.gate_up_proj",
    "down_proj": "mlp.down_proj",
}


class Recorder:
    """A method that rounds to nearest and keeps what it was told."""

    def __init__(self) -> None:
        self.seen: list[InputStatistics | None] = []

    def prepare(
        self, scheme: Scheme, statistics: InputStatistics | None, _device: str
    ) -> Callable[[FloatArray], QuantizedRows]:
        self.seen.append(statistics)
        return lambda weight: round_to_nearest(weight, scheme)


def make_task(folder: Path, shape: TinyShape, method: Method) -> tuple[WalkTask, PreTrainedModel]:
    model = build_model(shape)
    checkpoint = open_checkpoint(write_checkpoint(folder, model))
    architecture = find_architecture(checkpoint.config)
    config = architecture.read_config(checkpoint.config)
    sources = architecture.locate_parameters(config)
    windows = np.random.default_rng(3).integers(0, 256, (6, 24), dtype=np.int64)
    return WalkTask(
        config=config,
        parameters=ParameterRows(checkpoint, sources),
        schemes={name: SCHEME for name, source in sources.items() if len(source.shape) == 2},
        method=method,
        scale_dtype="fp32",
        windows=windows,
        embedding_moments=np.eye(config.hidden_size, dtype=np.float32),
        device="cpu",
    ), model


def quantize_in_place(weight: torch.Tensor) -> None:
    weight.data = torch.from_numpy(dequantize(round_to_nearest(weight.numpy(), SCHEME)))


@torch.no_grad()
def expected_moments(model: PreTrainedModel, windows: np.ndarray) -> list[FloatArray]:
    """From the definition: transformers' own model, its matrices replaced one after the other."""

    def moments_of(module: torch.nn.Module) -> FloatArray:
        seen: list[torch.Tensor] = []
        handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        model(torch.from_numpy(windows))
        handle.remove()
        x = seen[0].flatten(0, 1).double()
        return (x.T @ x / len(x)).float().numpy()

    found = []
    quantize_in_place(model.model.embed_tokens.weight)
    for layer in model.model.layers:
        for name, module in LINEARS.items():
            linear = layer.get_submodule(module)
            found.append(moments_of(linear))
            quantize_in_place(linear.weight)
            if name == "qkv_proj":
                quantize_in_place(layer.self_attn.k_proj.weight)
                quantize_in_place(layer.self_attn.v_proj.weight)
    if not model.config.tie_word_embeddings:
        found.append(moments_of(model.lm_head))
    return found


@pytest.mark.parametrize(
    "shape",
    [TinyShape(), TinyShape(model_type="glm", tie_word_embeddings=True, partial_rotary_factor=1.0)],
    ids=["glm4", "glm-tied"],
)
def test_inputs_are_those_of_the_quantized_model_so_far(tmp_path: Path, shape: TinyShape) -> None:
    """Float32 sums in another order: 144 terms, a few 1e-6 of the largest moment."""
    recorder = Recorder()
    task, model = make_task(tmp_path / "c", shape, Method(recorder.prepare, is_calibrated=True))
    Walk(task, open_state(tmp_path / "s"), lambda _: None).run()
    expected = expected_moments(model, task.windows)
    of_embedding, *seen = [statistics for statistics in recorder.seen if statistics is not None]
    np.testing.assert_array_equal(of_embedding.moments, task.embedding_moments)
    assert (
        len(seen) == len(expected) == 4 * shape.num_hidden_layers + (not shape.tie_word_embeddings)
    )
    for statistics, moments in zip(seen, expected, strict=True):
        np.testing.assert_allclose(statistics.moments, moments, atol=2e-5 * np.abs(moments).max())
        assert statistics.tokens == task.windows.size


def read_all(state: CalibrationState, task: WalkTask) -> dict[str, QuantizedRows]:
    found = {}
    for name in task.schemes:
        rows, inputs = task.parameters.sources[name].shape
        found[name] = state.read_codes(name, SCHEME, inputs, range(rows))
    return found


@pytest.mark.parametrize("is_folding", [False, True])
@pytest.mark.parametrize("stop_at", [(1, 1), (1, 4), (2, 2), (3, 0)])
def test_a_killed_walk_goes_on_at_the_matrix(
    tmp_path: Path, is_folding: bool, stop_at: tuple[int, int]
) -> None:
    """The same codes as without a kill, and finished matrices are not prepared again."""
    recorder = Recorder()
    method = Method(recorder.prepare, is_calibrated=True, is_folding=is_folding)
    task, _ = make_task(tmp_path / "c", TinyShape(), method)
    whole = Walk(task, open_state(tmp_path / "whole"), lambda _: None)
    whole.run()
    prepared = len(recorder.seen)

    state = open_state(tmp_path / "killed")

    def kill(_weights: int) -> None:
        if (state.stages_done, len(state.matrices_done)) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Walk(task, state, kill).run()
    recorder.seen.clear()
    state = open_state(tmp_path / "killed")
    assert (state.stages_done, len(state.matrices_done)) == stop_at
    again = Walk(task, state, lambda _: None)
    again.run()
    assert len(recorder.seen) == prepared - 1 - 4 * (stop_at[0] - 1) - stop_at[1]
    expected, found = read_all(whole.state, task), read_all(state, task)
    for name in expected:
        np.testing.assert_array_equal(found[name].codes, expected[name].codes)
        np.testing.assert_array_equal(found[name].scales, expected[name].scales)
    assert again.folding.columns.keys() == whole.folding.columns.keys()
    assert bool(again.folding.columns) == is_folding
    for name, scales in whole.folding.columns.items():
        np.testing.assert_array_equal(again.folding.columns[name], scales)


def test_progress_reaches_the_number_of_weights(tmp_path: Path) -> None:
    task, _ = make_task(tmp_path / "c", TinyShape(), Method(Recorder().prepare))
    done: list[int] = []
    Walk(task, open_state(tmp_path / "s"), done.append).run()
    matrices = sum(np.prod(task.parameters.sources[name].shape) for name in task.schemes)
    assert sum(done) == matrices


def test_a_singular_hessian_falls_back_and_says_so(tmp_path: Path) -> None:
    def refuse(*_: object) -> Callable[[FloatArray], QuantizedRows]:
        raise SingularStatisticsError("the inputs' second moments cannot be inverted")

    task, _ = make_task(tmp_path / "c", TinyShape(), Method(refuse, is_calibrated=True))
    schemes = task.schemes | {"layers.0.o_proj.weight": None}
    state = open_state(tmp_path / "s")
    Walk(replace(task, schemes=schemes), state, lambda _: None).run()
    assert "layers.0.o_proj.weight" not in state.fallbacks
    assert not state.has_codes("layers.0.o_proj.weight")
    assert len(state.fallbacks) == 1 + 4 * 2 - 1 + 1
    for name, why in state.fallbacks.items():
        assert "cannot be inverted" in why and "rtn-search" in why
        assert state.has_codes(name)
    assert open_state(tmp_path / "s").fallbacks == state.fallbacks
