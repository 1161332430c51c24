"""Whole pre-quantized GLM checkpoints, and the float models that they stand for."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from support.broken_checkpoints import (
    WEIGHTS,
    RawTensor,
    edit_config,
    from_array,
    write_safetensors,
)
from support.prequantized_tensors import Recipe, describe, draw_quantized, store
from support.tiny_models import TinyShape, build_model, write_checkpoint


@dataclass(frozen=True)
class Prequantized:
    """A tiny checkpoint in one of the formats.

    Attributes:
        shape: of the model.
        recipe: of its linears.
        is_chosen: which linears are quantized; by default all but the head.
        is_split: gate and up are stored one by one, as GPTQModel 7 writes them.
    """

    shape: TinyShape
    recipe: Recipe
    is_chosen: Callable[[str], bool] = field(default=lambda name: name != "lm_head")
    is_split: bool = False


def write_prequantized(folder: Path, wanted: Prequantized) -> PreTrainedModel:
    """Write the checkpoint.

    Returns:
        The float32 model whose weights are the checkpoint's, dequantized by the definition.
    """
    model = build_model(wanted.shape)
    tensors: dict[str, RawTensor] = {}
    replaced = set()
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or not wanted.is_chosen(name):
            continue
        names = _split(name) if wanted.is_split else [name]
        shape = (module.out_features // len(names), module.in_features)
        linears = {part: draw_quantized(part, shape, wanted.recipe) for part in names}
        for part, linear in linears.items():
            tensors |= store(part, linear, wanted.recipe)
        weight = np.concatenate([linear.dequantize() for linear in linears.values()])
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(weight))
        replaced.add(f"{name}.weight")
    write_checkpoint(folder, model)
    for name, parameter in model.named_parameters():  # a tied head is listed once
        if name not in replaced:
            tensors[name] = from_array(parameter.detach().numpy())
    write_safetensors(folder / WEIGHTS, tensors)
    edit_config(folder, quantization_config=describe(wanted.recipe))
    assert json.loads((folder / "config.json").read_text())["quantization_config"]
    return model


def _split(name: str) -> list[str]:
    """Gate is the first half of the rows, up the second: `Glm4MLP.forward` of transformers."""
    if not name.endswith("gate_up_proj"):
        return [name]
    return [name.replace("gate_up_proj", part) for part in ("gate_proj", "up_proj")]
