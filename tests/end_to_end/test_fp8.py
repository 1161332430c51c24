"""Fine-grained FP8: our weights are those that transformers dequantizes on a CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from glm_export.checkpoint.source_model import open_source
from support.broken_checkpoints import WEIGHTS, edit_config, from_array, write_safetensors
from support.scaled_weights import FP8, ScaledRecipe, describe_scaled, draw_scaled
from support.tiny_models import TinyShape, build_model, write_checkpoint


@pytest.mark.filterwarnings("ignore")
def test_weights_are_those_of_transformers(tmp_path: Path) -> None:
    """transformers rounds them to bfloat16, as the checkpoint's other tensors are; we do not."""
    recipe = ScaledRecipe(FP8, "block", (128, 128))
    model = build_model(TinyShape())
    write_checkpoint(tmp_path, model)
    tensors = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        if "proj.weight" in name:
            shape = (values.shape[0], values.shape[1])
            tensors |= draw_scaled(name.removesuffix(".weight"), shape, recipe)[0]
        else:
            tensors[name] = from_array(values.numpy())
    write_safetensors(tmp_path / WEIGHTS, tensors)
    edit_config(tmp_path, quantization_config=describe_scaled(recipe))
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).state_dict()
    source = open_source(tmp_path)
    for parameter, of in source.parameters.items():
        if "proj.weight" in parameter:
            found = torch.from_numpy(source.read_parameter(parameter)).bfloat16()
            assert torch.equal(found, torch.cat([expected[name] for name, _ in of.tensors]))
    assert np.isfinite(found.float().numpy()).all()
