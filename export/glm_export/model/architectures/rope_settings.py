"""Rotary settings of a config.json in any of the places and spellings that transformers 5 reads.

Transformers 4 writes `rope_theta` and `partial_rotary_factor` at the root and YaRN in
`rope_scaling`; 5 writes all of them in `rope_parameters`. A value that 5 cannot compute with is
refused.
Source: `convert_rope_params_to_dict`, `standardize_rope_params` and `_compute_yarn_parameters` in
transformers' `modeling_rope_utils.py` (5.23).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glm_export.errors import UnsupportedModelError
from glm_export.model.architectures.description import (
    read_count,
    read_flag,
    read_number,
    require_value,
)
from glm_runtime.folder.manifest import Yarn

# The first of them that holds anything is read, and the other one is not.
PLACES = ("rope_scaling", "rope_parameters")
ORIGINAL_CONTEXT = "original_max_position_embeddings"
_DEFAULTS: Mapping[str, float] = {"rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
_TYPE_KEYS = ("rope_type", "type")
_YARN = "yarn"
_YARN_KEYS = (
    "factor",
    ORIGINAL_CONTEXT,
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
)


@dataclass(frozen=True)
class RopeSettings:
    """Rotary settings: base, part of a head that is rotated, and YaRN if it is used."""

    theta: float
    partial_factor: float
    yarn: Yarn | None


def find_nested(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object of rotary settings that is read; an empty one if there is none.

    Raises:
        UnsupportedModelError: one of the two places does not hold an object.
    """
    for place in PLACES:
        nested = config.get(place)
        if nested is not None and not isinstance(nested, Mapping):
            raise UnsupportedModelError(
                f"config.json says {place}={nested!r}; an object is needed: check config.json."
            )
    return next((config[place] for place in PLACES if config.get(place)), {})


def read_rope(config: Mapping[str, Any], context_length: int) -> RopeSettings:
    """Read the rotary settings of a config.json.

    Raises:
        UnsupportedModelError: a value is not supported; the message names it.
    """
    nested = find_nested(config)
    kind = _read_kind(nested)
    known = {*_TYPE_KEYS, *_DEFAULTS, *(_YARN_KEYS if kind == _YARN else ())}
    for key in sorted(set(nested) - known):
        require_value(nested, key)
    theta, partial_factor = (_read_default(config, nested, key) for key in _DEFAULTS)
    yarn = _read_yarn(config, nested, context_length) if kind == _YARN else None
    return RopeSettings(theta, partial_factor, yarn)


def describe_conflict(config: Mapping[str, Any]) -> str:
    """Return a sentence for a config.json with two different objects of settings, else ""."""
    first, second = (config.get(place) for place in PLACES)
    if not first or not second or first == second:
        return ""
    return (
        f"config.json has {PLACES[0]} and {PLACES[1]}, which differ; {PLACES[0]} was used, as in "
        "transformers 5."
    )


def _read_kind(nested: Mapping[str, Any]) -> str:
    key = next((key for key in _TYPE_KEYS if key in nested), None)
    kind = "default" if key is None else nested[key]
    if kind not in ("default", _YARN):
        raise UnsupportedModelError(
            f"config.json says {key}={kind!r}; supported is 'default' or 'yarn': use another "
            "checkpoint."
        )
    return str(kind)


def _read_default(config: Mapping[str, Any], nested: Mapping[str, Any], key: str) -> float:
    place = nested if key in nested else config
    if key in place and place[key] is None:
        raise UnsupportedModelError(
            f"config.json says {key}=None; a number above 0 is needed: remove that line, or "
            "correct it."
        )
    return read_number(place, key, _DEFAULTS[key])


def _read_yarn(config: Mapping[str, Any], nested: Mapping[str, Any], context_length: int) -> Yarn:
    """Read YaRN's settings; missing values get the defaults of transformers."""
    original = _read_original(config, nested, context_length)
    factor = _read_factor(nested, context_length / original)
    attention_factor = _stretch_attention(factor)
    if nested.get("mscale") and nested.get("mscale_all_dim"):
        shares = (read_number(nested, key, 1.0) for key in ("mscale", "mscale_all_dim"))
        one, all_ = (_stretch_attention(factor, share) for share in shares)
        attention_factor = one / all_
    return Yarn(
        factor=factor,
        original_context=original,
        attention_factor=read_number(nested, "attention_factor", attention_factor),
        beta_fast=read_number(nested, "beta_fast", 32.0),
        beta_slow=read_number(nested, "beta_slow", 1.0),
        is_truncated=read_flag(nested, "truncate", True),
    )


def _read_original(
    config: Mapping[str, Any], nested: Mapping[str, Any], context_length: int
) -> int:
    """Read the training context; the one at the root wins."""
    for place in (config, nested):
        if ORIGINAL_CONTEXT in place:
            return read_count(place, ORIGINAL_CONTEXT)
    return context_length


def _read_factor(nested: Mapping[str, Any], ratio: float) -> float:
    """Read the factor; null stands for the ratio of the contexts, but it must not be missing."""
    if "factor" not in nested:
        raise UnsupportedModelError(
            "config.json says rope_type='yarn' without factor, which transformers needs; add it, "
            "for example 4.0."
        )
    return read_number(nested, "factor", ratio)


def _stretch_attention(factor: float, share: float = 1.0) -> float:
    return 0.1 * share * math.log(factor) + 1.0 if factor > 1 else 1.0
