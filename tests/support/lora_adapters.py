"""LoRA adapters written tensor by tensor in PEFT's layout, and their change by the definition.

Shares no code with the exporter and does not need PEFT. Values are multiples of 1/16 between -1/2
and 1/2, so that sums of a few products are exact in float32 in any order.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from support.broken_checkpoints import RawTensor, from_array, write_json, write_safetensors

Floats = npt.NDArray[np.float32]
PREFIX = "base_model.model."
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# Module -> [outputs, inputs], of the small checkpoint of `broken_checkpoints`.
LAYER = "model.layers.0."
MODULES: Mapping[str, tuple[int, int]] = {
    f"{LAYER}self_attn.q_proj": (64, 64),
    f"{LAYER}self_attn.v_proj": (32, 64),
    f"{LAYER}mlp.gate_up_proj": (192, 64),
    f"{LAYER}mlp.down_proj": (64, 96),
}


def draw(name: str, shape: tuple[int, ...]) -> Floats:
    """Values that depend on the name."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    return (random.integers(-8, 9, shape) / 16).astype(np.float32)


def draw_change(modules: Mapping[str, tuple[int, int]], rank: int = 2) -> dict[str, Floats]:
    """`lora_A` [rank, inputs] and `lora_B` [outputs, rank] of each module, by their names."""
    tensors: dict[str, Floats] = {}
    for module, (outputs, inputs) in modules.items():
        tensors[f"{module}.lora_A.weight"] = draw(f"{module}.A", (rank, inputs))
        tensors[f"{module}.lora_B.weight"] = draw(f"{module}.B", (outputs, rank))
    return tensors


def define_change(tensors: Mapping[str, Floats], module: str, factor: float) -> Floats:
    """factor * B A, in float64."""
    down, up = (tensors[f"{module}.lora_{side}.weight"].astype(np.float64) for side in "AB")
    return (factor * (up @ down)).astype(np.float32)


def write_adapter(
    folder: Path, tensors: Mapping[str, Floats] | None = None, **settings: Any
) -> Path:
    """An adapter of rank 2 and alpha 4, whose factor is 2."""
    folder.mkdir()
    content = draw_change(MODULES) if tensors is None else tensors
    modules = {name.partition(".lora_")[0] for name in content if ".lora_" in name}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "org/base",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": sorted({module.rpartition(".")[2] for module in modules}),
        "qalora_group_size": 16,
        "megatron_core": "megatron.core",
        "init_lora_weights": True,
        "bias": "none",
    }
    write_json(folder / CONFIG, config | settings)
    write_safetensors(folder / WEIGHTS, {PREFIX + k: from_array(v) for k, v in content.items()})
    return folder


def read_array(tensor: RawTensor) -> Floats:
    """The values of a float32 tensor."""
    return np.frombuffer(tensor.data, "<f4").reshape(tensor.shape).copy()
