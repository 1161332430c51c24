"""Models whose numbers float16 cannot hold, exported in float16.

Verification compares the graph with PyTorch in float32, so an export that ends is the proof. The
other way round, a graph that keeps everything in float16 is shown to fail on the same models.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import glm_runtime
from glm_export import ExportOptions, export
from glm_export.errors import VerificationError
from glm_export.plan import plan as plan_module
from glm_runtime.errors import GenerationError
from glm_runtime.graph.decoding import Decoder
from support.tiny_models import TinyShape, build_model, write_checkpoint

LARGEST_FLOAT16 = 65_504.0


@dataclass(frozen=True)
class Peaks:
    """Largest absolute values of one pass."""

    product: float
    scores: float
    down: float


def build_extreme_model(kind: str) -> PreTrainedModel:
    """Random, with queries and keys 60 times and MLP inputs 400 times as large as elsewhere."""
    model = build_model(TinyShape(model_type=kind, head_dim=64))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(60)
            if "gate_up_proj" in name:
                parameter.mul_(400)
    return model


def measure_peaks(model: PreTrainedModel) -> Peaks:
    """What the first layer of the original computes on some tokens."""
    layer = model.model.layers[0]
    seen: dict[str, torch.Tensor] = {}
    for name, module in (
        ("query", layer.self_attn.q_proj),
        ("key", layer.self_attn.k_proj),
        ("down", layer.mlp.down_proj),
    ):
        module.register_forward_hook(
            lambda _module, inputs, output, name=name: seen.update(
                {name: output, f"{name} input": inputs[0]}
            )
        )
    with torch.no_grad():
        model(torch.arange(64)[None])
    query, key = (seen[name].view(64, -1, 64).transpose(0, 1) for name in ("query", "key"))
    scores = query[: len(key)] @ key.transpose(1, 2)
    return Peaks(*(float(x.abs().max()) for x in (seen["down input"], scores, seen["down"])))


@pytest.fixture(params=["glm4", "glm"])
def extreme(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    model = build_extreme_model(request.param)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", model)
    peaks = measure_peaks(model)
    assert min(peaks.product, peaks.scores, peaks.down) > LARGEST_FLOAT16
    return checkpoint


def choose(checkpoint: Path, output: Path, quant: str) -> ExportOptions:
    return ExportOptions(checkpoint, output, quant=quant, target="cuda", verify="full")


@pytest.mark.parametrize("quant", ["none", "int8"])
def test_a_float16_folder_computes_beyond_float16(
    quant: str, extreme: Path, tmp_path: Path
) -> None:
    report = export(choose(extreme, tmp_path / "out", quant))
    error = report.verification["logit_error"]
    assert isinstance(error, float)
    assert error < 0.01


@pytest.mark.parametrize("quant", ["none", "int8"])
def test_without_its_wide_parts_the_graph_fails(
    quant: str, extreme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "widen_dtype", lambda dtype: dtype)
    with pytest.raises(VerificationError, match="differ from PyTorch's by nan"):
        export(choose(extreme, tmp_path / "out", quant))


@pytest.mark.parametrize("has_fixed_steps", [True, False])
def test_logits_that_are_no_numbers_end_the_answer_with_an_error(
    has_fixed_steps: bool, extreme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "widen_dtype", lambda dtype: dtype)
    options = dataclasses.replace(choose(extreme, tmp_path / "out", "int8"), verify="none")
    export(options)
    model = glm_runtime.load(tmp_path / "out", device="cpu")
    graph = dataclasses.replace(model.graph, has_fixed_steps=has_fixed_steps)
    decoder = Decoder(graph, model.manifest.model)
    assert np.isnan(decoder.append([1, 2, 3])).all()
    if has_fixed_steps:
        assert not np.isfinite(decoder.choose_next(4)[1])
    with pytest.raises(GenerationError, match="as its best logit where a finite number"):
        list(dataclasses.replace(model, graph=graph).generate([1, 2, 3]))
