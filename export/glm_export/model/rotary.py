"""The rotary embedding's tables: cosine and sine of every pair's angle at every position.

Angles are products of float32 numbers, as transformers computes them: far positions then get the
same rounding, which at 100,000 tokens is a few thousandths of a radian.
Source: Su et al. 2021, eq. 15 (arXiv:2104.09864); for YaRN, Peng et al. 2023, section 3
(arXiv:2309.00071), and transformers' `modeling_rope_utils.py` for what it leaves open.
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
    """Cosines and sines by position, each [length, rotary_dim / 2] float32.

    Args:
        config: the decoder's shape.
        length: positions from 0 on; None: the whole context.
    """
    positions = np.arange(length or config.context_length, dtype=np.float32)
    angles = np.outer(positions, find_frequencies(config))
    scale = np.float32(1.0 if config.yarn is None else config.yarn.attention_factor)
    return np.cos(angles) * scale, np.sin(angles) * scale


def is_factored(config: DecoderConfig) -> bool:
    """Whether the context is so long that whole tables would weigh on file and memory.

    They are then made from small ones in the graph, as far as the tokens reach: the angle of
    position 1024 i + j is the sum of two, and cosine and sine of a sum are products of those.
    """
    return config.context_length > LONGEST_TABLE


def list_tables(config: DecoderConfig) -> dict[str, tuple[int, int]]:
    """Name -> shape of the tables that the graph holds."""
    half = config.rotary_dim // 2
    if not is_factored(config):
        return dict.fromkeys(("cos", "sin"), (config.context_length, half))
    coarse = -(-config.context_length // FINE_POSITIONS)
    return dict.fromkeys(COARSE_TABLES, (coarse, half)) | dict.fromkeys(
        FINE_TABLES, (FINE_POSITIONS, half)
    )


def stored_tables(config: DecoderConfig) -> dict[str, FloatArray]:
    """The tables of `list_tables`; factors are those of exact angles."""
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
    """Radians per position of every pair, [rotary_dim / 2] float32."""
    exponents = torch.arange(0, config.rotary_dim, 2, dtype=torch.float32) / config.rotary_dim
    # By torch: numpy's powers differ in the last bit, which is 0.002 radians at a million tokens.
    periods: FloatArray = torch.pow(config.rope_theta, exponents).numpy()
    frequencies: FloatArray = (1.0 / periods).astype(np.float32)
    if config.yarn is None:
        return frequencies
    slowed = (1.0 / (np.float32(config.yarn.factor) * periods)).astype(np.float32)
    kept = 1 - _slowed_part(config, config.yarn)
    mixed: FloatArray = (slowed * (1 - kept) + frequencies * kept).astype(np.float32)
    return mixed


def _slowed_part(config: DecoderConfig, yarn: Yarn) -> FloatArray:
    """0 for pairs that turn often within the original context, 1 for those that hardly do."""
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
    """Which pair, in between two perhaps, turns so often within the original context."""
    ratio = yarn.original_context / (turns * 2 * math.pi)
    return config.rotary_dim * math.log(ratio) / (2 * math.log(config.rope_theta))
