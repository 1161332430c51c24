"""The rotation tables that a graph stores, computed as `glm_runtime.graph.rotary` does.

PyTorch computes the periods, which the manifest keeps: numpy's powers differ in the last bit, which
is 0.002 radians at a million tokens.
"""

import torch

from glm_export.model.architectures import DecoderConfig
from glm_quantize import FloatArray
from glm_runtime.folder.manifest import RopeEntry
from glm_runtime.graph import rotary
from glm_runtime.graph.rotary import COARSE_TABLES, FINE_TABLES, WHOLE_TABLES

LONGEST_TABLE = 131_072
FINE_POSITIONS = 1024

__all__ = [
    "COARSE_TABLES",
    "FINE_TABLES",
    "describe_rope",
    "find_frequencies",
    "is_factored",
    "list_tables",
    "rotation_tables",
    "stored_tables",
]


def describe_rope(config: DecoderConfig, long_prompt: int | None = None) -> RopeEntry:
    """Describe the rotary embedding as the manifest does.

    Args:
        config: shape of the decoder.
        long_prompt: number of prompt tokens above which the model's card recommends YaRN.
    """
    exponents = torch.arange(0, config.rotary_dim, 2, dtype=torch.float32) / config.rotary_dim
    periods = torch.pow(config.rope_theta, exponents).tolist()
    yarn = config.yarn
    original = config.context_length if yarn is None else yarn.original_context
    return RopeEntry(config.rope_theta, tuple(periods), original, yarn, long_prompt)


def rotation_tables(
    config: DecoderConfig, length: int | None = None
) -> tuple[FloatArray, FloatArray]:
    """Compute cosines and sines by position, each [length, rotary_dim / 2] float32.

    Args:
        config: shape of the decoder.
        length: number of positions from 0 on; None is the whole context.
    """
    return rotary.whole_tables(describe_rope(config), length or config.context_length)


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
        return dict.fromkeys(WHOLE_TABLES, (config.context_length, half))
    coarse = -(-config.context_length // FINE_POSITIONS)
    return dict.fromkeys(COARSE_TABLES, (coarse, half)) | dict.fromkeys(
        FINE_TABLES, (FINE_POSITIONS, half)
    )


def stored_tables(config: DecoderConfig) -> dict[str, FloatArray]:
    """Compute the tables of `list_tables`."""
    if not is_factored(config):
        return dict(zip(WHOLE_TABLES, rotation_tables(config), strict=True))
    length = config.context_length
    return rotary.factored_tables(describe_rope(config), length, FINE_POSITIONS)


def find_frequencies(config: DecoderConfig) -> FloatArray:
    """Compute the radians per position of each pair, [rotary_dim / 2] float32."""
    return rotary.find_frequencies(describe_rope(config))
