"""Sampling settings that leave nothing to the folder, to compare hosts."""

from typing import Any

from glm_runtime import SamplingSettings

_NEUTRAL = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0)


def neutral_sampling(*values: Any, **fields: Any) -> SamplingSettings:
    """`SamplingSettings`, in which what is left out changes nothing."""
    return SamplingSettings(*values, **fields).fill(_NEUTRAL)
