"""Adapters that PEFT trained and saved: our logits are those of PEFT's `merge_and_unload`."""

import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from glm_export import Adapter, ExportOptions, export
from glm_export.checkpoint.source_model import open_source
from glm_export.evaluation.evaluate import evaluate
from glm_export.evaluation.inputs import EvaluationOptions
from glm_export.model.layer_stream import LayerStream
from glm_runtime.progress import ignore_progress
from support.graphs import PlainGraph
from support.tiny_models import TinyShape, build_model, write_checkpoint

IDS = np.random.default_rng(0).integers(0, 320, (1, 40), dtype=np.int64)
ATTENTION = ["q_proj", "k_proj", "v_proj"]


@dataclass(frozen=True)
class Case:
    """A model, an adapter's settings, and how PEFT saves it."""

    settings: dict[str, Any]
    shape: TinyShape = field(default_factory=TinyShape)
    dtype: torch.dtype = torch.float32
    is_bin: bool = False


EVERYTHING: dict[str, Any] = {
    "target_modules": "all-linear",
    "rank_pattern": {"down_proj": 5, "layers.0.self_attn.q_proj": 3},
    "alpha_pattern": {"layers.1.mlp.gate_up_proj": 11},
    "use_rslora": True,
}
GLM = TinyShape(model_type="glm", attention_bias=False)
CASES = {
    "patterns": Case(EVERYTHING),
    "glm": Case({"target_modules": [*ATTENTION, "gate_up_proj"], "lora_alpha": 3}, GLM),
    "whole modules": Case(
        {"target_modules": ATTENTION, "modules_to_save": ["lm_head", "input_layernorm"]}
    ),
    "embedding": Case({"target_modules": ["embed_tokens", "o_proj"]}),
    "all biases": Case({"target_modules": ["q_proj", "down_proj"], "bias": "all"}),
    "bias of B": Case({"target_modules": ATTENTION, "lora_bias": True}),
    "fan in fan out": Case({"target_modules": ["gate_up_proj"], "fan_in_fan_out": True}),
    "some layers": Case({"target_modules": ["down_proj"], "layers_to_transform": [1]}),
    "bfloat16": Case({"target_modules": ATTENTION}, dtype=torch.bfloat16),
    "an expression": Case({"target_modules": r".*\.1\..*(q|down)_proj"}),
    "bin": Case({"target_modules": ["o_proj"]}, is_bin=True),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """PEFT warns of what the cases ask for, for example of `fan_in_fan_out`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def train(folder: Path, case: Case, seed: int = 1) -> Path:
    """An adapter whose every trained number is random, saved by PEFT."""
    settings = {"r": 4, "lora_alpha": 8} | case.settings
    model = get_peft_model(build_model(case.shape), LoraConfig(task_type="CAUSAL_LM", **settings))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn_like(parameter) * 0.2
            parameter.data = (noise if "lora" in name else parameter.data + noise).to(case.dtype)
    model.save_pretrained(folder, safe_serialization=not case.is_bin)
    return folder


def write_base(folder: Path, shape: TinyShape) -> Path:
    write_checkpoint(folder, build_model(shape))
    return folder


def run(model: PreTrainedModel) -> np.ndarray[Any, Any]:
    with torch.inference_mode():
        return model(torch.from_numpy(IDS)).logits.numpy()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_logits_are_those_of_peft(tmp_path: Path, case: Case) -> None:
    folder = train(tmp_path / "lora", case)
    base = build_model(case.shape)
    plain = run(base)
    expected = run(PeftModel.from_pretrained(base, str(folder)).merge_and_unload())
    source = open_source(write_base(tmp_path / "base", case.shape), adapters=[Adapter(folder)])
    stream = LayerStream(source.config, source.read_parameter)
    with torch.inference_mode():
        found = (stream.hidden_states(IDS) @ stream.read_head().T).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-5)
    assert np.abs(expected - plain).max() > 0.1  # the adapter is not invisible


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two adapters, and the folder of the base with both."""
    root = tmp_path_factory.mktemp("two")
    write_base(root / "base", TinyShape())
    train(root / "a", Case({"target_modules": [*ATTENTION, "down_proj"], "r": 3}))
    train(root / "b", Case({"target_modules": ["q_proj", "gate_up_proj"], "r": 6}), seed=2)
    export(
        ExportOptions(root / "base", root / "out", quant="none", verify="full", adapters=two(root))
    )
    return root


def two(root: Path) -> tuple[Adapter, ...]:
    return Adapter(root / "a", 0.5), Adapter(root / "b", -2.0)


def test_two_weighted_adapters_in_the_graph(root: Path) -> None:
    """PEFT's `cat` is the sum of weight * factor * B A."""
    model = PeftModel.from_pretrained(build_model(TinyShape()), str(root / "a"), "a")
    model.load_adapter(str(root / "b"), "b")
    model.add_weighted_adapter(["a", "b"], [0.5, -2.0], "both", combination_type="cat")
    model.set_adapter("both")
    expected = run(model.merge_and_unload())
    found = PlainGraph(root / "out").run(IDS)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-5)


def test_the_original_of_an_evaluation(root: Path) -> None:
    """With the same adapters the float folder loses nothing; without them that is said."""
    folders = (root / "out",)
    same = EvaluationOptions(root / "base", folders, max_tokens=512, adapters=two(root))
    report = evaluate(same, ignore_progress)
    assert report.folders[0].comparison.kl_mean < 1e-6
    assert len(report.notes) == 2 and all("was merged" in note for note in report.notes)
    report = evaluate(EvaluationOptions(root / "base", folders, max_tokens=512), ignore_progress)
    assert report.folders[0].comparison.kl_mean > 1e-2
    assert report.notes == (
        "out was exported with a=0.5, b=-2, other than this original; give the same --adapter for "
        "a comparison of the same weights.",
    )


def test_adapters_of_an_evaluation_are_compared_by_their_files(root: Path, tmp_path: Path) -> None:
    """Another adapter in a folder of the same name was taken for the one of the export."""
    folders = (root / "out",)
    names = {"moved": ("x", "y"), "other": ("a", "b")}
    for case, (first, second) in names.items():
        shutil.copytree(root / "a", tmp_path / case / first)
        shutil.copytree(root / "b", tmp_path / case / second)
        if case == "other":
            path = tmp_path / case / second / "adapter_model.safetensors"
            save_file({k: 2 * v for k, v in load_file(path).items()}, path)
        adapters = Adapter(tmp_path / case / first, 0.5), Adapter(tmp_path / case / second, -2.0)
        options = EvaluationOptions(root / "base", folders, max_tokens=512, adapters=adapters)
        notes = evaluate(options, ignore_progress).notes
        assert any("other than this original" in note for note in notes) == (case == "other")
