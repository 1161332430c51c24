"""The scales of an int8 KV cache, one for each channel of keys and values.

A scale is 1.1 / 127 of the largest absolute value of the original model on the calibration text. On
the sample model, clipping costs more than coarse steps: with a factor of 0.8 the KL divergence is
ten times as large, with 1.2 a quarter larger. Percentiles and least squares are worse.

Keys are stored after the rotary embedding, which rotates pairs of channels by the position. Both
channels of a pair get the scale of the pair's largest radius, which does not depend on positions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glm_export.calibration.corpus import Corpus
from glm_export.model.architectures import DecoderConfig
from glm_export.model.layer_stream import WINDOWS_AT_ONCE, LayerStream, ReadParameter
from glm_quantize import FloatArray
from glm_runtime.progress import Progress, track_stage

_MARGIN = 1.1
_LARGEST_CODE = 127


@dataclass(frozen=True)
class CacheScales:
    """Scales of one layer's keys and values, [1, K, 1, D] float32: value = code * scale."""

    key: FloatArray
    value: FloatArray


@torch.inference_mode()
def measure_cache_scales(
    config: DecoderConfig, read: ReadParameter, corpus: Corpus, progress: Progress
) -> list[CacheScales]:
    """Run the model on the calibration text, layer by layer, and compute the scales.

    Args:
        config: shape of the decoder.
        read: reads its parameters; one layer is in memory at a time.
        corpus: calibration text; every window starts at position 0.
        progress: called with (stage, layers done, layers in total).

    Returns:
        One entry for each layer.
    """
    stream = LayerStream(config, read)
    states = stream.embed(corpus.windows)
    advance = track_stage(progress, "measuring keys and values", config.num_layers)
    scales = []
    for index in range(config.num_layers):
        layer = stream.load_layer(index)
        largest = [torch.zeros(config.num_kv_heads, config.head_dim) for _ in range(2)]
        for rows in torch.split(states, WINDOWS_AT_ONCE):
            attended, key, value = stream.attend(layer, rows)
            for most, values in zip(largest, (_measure_radii(key, config), value), strict=True):
                torch.maximum(most, values.abs().amax((0, 2)), out=most)
            x = layer.add_attention(rows, attended)
            rows.copy_(layer.add_mlp(x, layer.gate(x)))
        scales.append(CacheScales(*(_choose_scales(most.numpy()) for most in largest)))
        advance(1)
    return scales


def _measure_radii(key: Tensor, config: DecoderConfig) -> Tensor:
    """Replace keys [B, K, S, D] by their absolute values, or by the radius of rotated pairs."""
    turned, rest = key[..., : config.rotary_dim], key[..., config.rotary_dim :]
    radii = torch.linalg.vector_norm(turned.reshape(*turned.shape[:-1], -1, 2), dim=-1)
    return torch.cat([radii.repeat_interleave(2, dim=-1), rest.abs()], dim=-1)


def _choose_scales(largest: FloatArray) -> FloatArray:
    """Compute scales [1, K, 1, D] from [K, D]; an all-zero channel gets the largest scale."""
    widest = float(largest.max()) or 1.0
    reached = np.where(largest > 0, largest, widest)
    scales = (_MARGIN / _LARGEST_CODE * reached).astype(np.float32)
    return scales[None, :, None, :]
