"""Tables of the rotary embedding: cosine and sine of the angle of each pair at each position.

Angles are products of float32 numbers, as in transformers, so that far positions have the same
rounding error, a few thousandths of a radian at 100,000 tokens.
Source: Su et al. 2021, eq. 15 (arXiv:2104.09864); for YaRN, Peng et al. 2023, section 3
(arXiv:2309.00071), and for its details transformers' `modeling_rope_utils.py`.
"""

import math

import numpy as np
import torch

from glm_export.model.architectures import DecoderConfig, Yarn
from glm_quantize import FloatArray

LONGEST_TABLE = 131_072
FINE_POSITIONS = 1024
COARSE_TABLES = ("cos_coarse", "sin_coarse")
FINE_TABLES = ("cos_fine", "sin_fine")


def rotation_tables(
    config: DecoderConfig, length: int | None = None
) -> tuple[FloatArray, FloatArray]:
    """Compute cosines and sines by position, each [length, rotary_dim / 2] float32.

    Args:
        config: shape of the decoder.
        length: number of positions from 0 on; None is the whole context.
    """
    positions = np.arange(length or config.context_length, dtype=np.float32)
    angles = np.outer(positions, find_frequencies(config))
    scale = np.float32(1.0 if config.yarn is None else config.yarn.attention_factor)
    return np.cos(angles) * scale, np.sin(angles) * scale


def is_factored(config: DecoderConfig) -> bool:
    """Return True if the context is so long that the graph stores two small tables instead.

    The graph then computes the tables up to the last token: the angle of position 1024 i + j is a
    sum of two angles, whose cosine and sine follow from the stored ones.
    """
    return config.context_length > LONGEST_TABLE


def list_tables(config: DecoderConfig) -> dict[str, tuple[int, int]]:
    """Return the shapes of the tables that the graph stores, by name."""
    half = config.rotary_dim // 2
    if not is_factored(config):
        return dict.fromkeys(("cos", "sin"), (config.context_length, half))
    coarse = -(-config.context_length // FINE_POSITIONS)
    return dict.fromkeys(COARSE_TABLES, (coarse, half)) | dict.fromkeys(
        FINE_TABLES, (FINE_POSITIONS, half)
    )


def stored_tables(config: DecoderConfig) -> dict[str, FloatArray]:
    """Compute the tables of `list_tables`; two small tables have exact angles."""
    if not is_factored(config):
        return dict(zip(("cos", "sin"), rotation_tables(config), strict=True))
    frequencies = find_frequencies(config).astype(np.float64)
    tables: dict[str, FloatArray] = {}
    scale = 1.0 if config.yarn is None else config.yarn.attention_factor
    for names, step, factor in ((COARSE_TABLES, FINE_POSITIONS, scale), (FINE_TABLES, 1, 1.0)):
        count = list_tables(config)[names[0]][0]
        angles = np.outer(step * np.arange(count, dtype=np.float64), frequencies)
        for name, values in zip(names, (np.cos(angles), np.sin(angles)), strict=True):
            tables[name] = (factor * values).astype(np.float32)
    return tables


def find_frequencies(config: DecoderConfig) -> FloatArray:
    """Compute the radians per position of each pair, [rotary_dim / 2] float32."""
    exponents = torch.arange(0, config.rotary_dim, 2, dtype=torch.float32) / config.rotary_dim
    # PyTorch's and numpy's powers differ in the last bit, 0.002 radians at a million tokens.
    periods: FloatArray = torch.pow(config.rope_theta, exponents).numpy()
    frequencies: FloatArray = (1.0 / periods).astype(np.float32)
    if config.yarn is None:
        return frequencies
    slowed = (1.0 / (np.float32(config.yarn.factor) * periods)).astype(np.float32)
    kept = 1 - _slowed_part(config, config.yarn)
    mixed: FloatArray = (slowed * (1 - kept) + frequencies * kept).astype(np.float32)
    return mixed


def _slowed_part(config: DecoderConfig, yarn: Yarn) -> FloatArray:
    """Return YaRN's ramp: 0 for pairs that rotate often in the original context, 1 for slow."""
    first, last = (_find_pair(config, yarn, turns) for turns in (yarn.beta_fast, yarn.beta_slow))
    if yarn.is_truncated:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, config.rotary_dim - 1)
    if first == last:
        last += 0.001
    pairs = np.arange(config.rotary_dim // 2, dtype=np.float32)
    ramp = (pairs - np.float32(first)) / np.float32(last - first)
    part: FloatArray = np.clip(ramp, 0, 1).astype(np.float32)
    return part


def _find_pair(config: DecoderConfig, yarn: Yarn, turns: float) -> float:
    """Return the (fractional) index of the pair with `turns` rotations in the original context."""
    ratio = yarn.original_context / (turns * 2 * math.pi)
    return config.rotary_dim * math.log(ratio) / (2 * math.log(config.rope_theta))
