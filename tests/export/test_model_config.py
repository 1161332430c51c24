"""config.json of a folder from a `chatglm` checkpoint: the same decoder, as the type `glm`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from glm_export import ExportOptions, export
from glm_export.checkpoint.rope_options import RopeOptions
from glm_export.checkpoint.source_model import open_source
from glm_export.evaluation.inputs import agree_on_rope
from glm_export.model.architectures import find_architecture
from glm_runtime.folder.manifest import read_manifest
from support.chatglm_checkpoints import write_chatglm
from support.tiny_models import TinyShape, build_model

IDS = torch.arange(40).reshape(1, 40)
ROPES = {
    "plain": RopeOptions(),
    "theta": RopeOptions(theta=20_000.0),
    "yarn": RopeOptions("yarn", 4.0, 128),
}


def export_chatglm(tmp_path: Path, rope: RopeOptions) -> tuple[Path, Any]:
    model = build_model(TinyShape(model_type="glm", rope_theta=5_000_000.0))
    checkpoint = write_chatglm(tmp_path / "checkpoint", model, 500.0)
    export(ExportOptions(checkpoint, tmp_path / "out", quant="none", verify="none", rope=rope))
    return checkpoint, model


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES.keys())
def test_the_same_decoder(tmp_path: Path, rope: RopeOptions) -> None:
    """Without its code, transformers and Optimum refused `chatglm`."""
    checkpoint, _ = export_chatglm(tmp_path, rope)
    content = json.loads((tmp_path / "out" / "config.json").read_text())
    architecture = find_architecture(content)
    assert architecture.model_type == "glm"
    source = open_source(checkpoint, rope.list_changes(checkpoint))
    assert architecture.read_config(content) == source.config
    assert read_manifest(tmp_path / "out").source.model_type == "chatglm"
    # `glm-eval` gives the original the folder's rotary settings.
    again = open_source(checkpoint, agree_on_rope([tmp_path / "out"])).config
    assert dataclasses.asdict(again) == dataclasses.asdict(source.config)


@pytest.mark.usefixtures("no_graph")
def test_transformers_builds_the_same_model(tmp_path: Path) -> None:
    _, model = export_chatglm(tmp_path, ROPES["plain"])
    config = AutoConfig.from_pretrained(tmp_path / "out", trust_remote_code=False)
    other = AutoModelForCausalLM.from_config(config, torch_dtype=torch.float32).eval()
    other.load_state_dict(model.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(other(IDS).logits, model(IDS).logits, rtol=0, atol=1e-5)
