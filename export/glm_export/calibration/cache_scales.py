"""How far keys and values reach, channel by channel: the scales of an int8 KV cache.

A scale is 1.1 / 127 of the largest absolute value that the original model shows over the
calibration text. On the sample model clipping costs more than coarse steps do: scales of 0.8 of
the largest value cost ten times the KL, 1.2 a quarter more; percentiles and least squares are worse
than the largest value.

Keys are stored after rotation, which turns pairs of channels into each other as positions go by:
both channels of a pair get the scale of its largest radius, which no position changes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glm_export.calibration.corpus import Corpus
from glm_export.calibration.reference import ReadParameter, load_layer
from glm_export.model import operators
from glm_export.model.architectures import DecoderConfig
from glm_export.model.rotary import rotation_tables
from glm_export.plan.report import Progress
from glm_quantize import FloatArray

_MARGIN = 1.1
_LARGEST_CODE = 127
_WINDOWS_AT_ONCE = 4


@dataclass(frozen=True)
class CacheScales:
    """Of one layer: value = code * scale. Both [1, K, 1, D] float32."""

    key: FloatArray
    value: FloatArray


@torch.inference_mode()
def measure_cache_scales(
    config: DecoderConfig, read: ReadParameter, corpus: Corpus, progress: Progress
) -> list[CacheScales]:
    """Run the model over the calibration text, layer by layer, and note the largest values.

    Args:
        config: the decoder's shape.
        read: gives its parameters; one layer is in memory at a time.
        corpus: the text; every window starts at position 0.
        progress: called once a layer.

    Returns:
        One entry for each layer.
    """
    ids = torch.from_numpy(corpus.windows)
    states = operators.embed(torch.from_numpy(read("embed_tokens.weight")), ids)
    cos, sin = (torch.from_numpy(part) for part in rotation_tables(config, ids.shape[1]))
    positions = operators.locate_positions(torch.ones_like(ids), cos, sin)
    scales = []
    for index in range(config.num_layers):
        progress("measuring keys and values", index, config.num_layers)
        layer = load_layer(config, read, index)
        largest = [torch.zeros(config.num_kv_heads, config.head_dim) for _ in range(2)]
        for rows in torch.split(states, _WINDOWS_AT_ONCE):
            empty = torch.empty(len(rows), config.num_kv_heads, 0, config.head_dim)
            attended, key, value = layer.attend(rows, (empty, empty), positions)
            for most, values in zip(largest, (_measure_radii(key, config), value), strict=True):
                torch.maximum(most, values.abs().amax((0, 2)), out=most)
            x = layer.add_attention(rows, attended)
            rows.copy_(layer.add_mlp(x, layer.gate(x)))
        scales.append(CacheScales(*(_choose_scales(most.numpy()) for most in largest)))
    progress("measuring keys and values", config.num_layers, config.num_layers)
    return scales


def _measure_radii(key: Tensor, config: DecoderConfig) -> Tensor:
    """Keys [B, K, S, D] as positive numbers that no other position would make larger."""
    turned, rest = key[..., : config.rotary_dim], key[..., config.rotary_dim :]
    radii = torch.linalg.vector_norm(turned.reshape(*turned.shape[:-1], -1, 2), dim=-1)
    return torch.cat([radii.repeat_interleave(2, dim=-1), rest.abs()], dim=-1)


def _choose_scales(largest: FloatArray) -> FloatArray:
    """[K, D] to [1, K, 1, D]; a channel that was always zero gets the layer's widest scale."""
    widest = float(largest.max()) or 1.0
    reached = np.where(largest > 0, largest, widest)
    scales = (_MARGIN / _LARGEST_CODE * reached).astype(np.float32)
    return scales[None, :, None, :]
