"""`glm`: GLM-4-9B (-hf), GLM-Edge. Pre-norm layers, interleaved partial rotary embedding.

Source: the published config.json files, and transformers' `models/glm/configuration_glm.py` for
the defaults of absent values.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from glm_export.errors import UnsupportedModelError
from glm_export.model.architectures.description import (
    Architecture,
    DecoderConfig,
    ParameterSource,
    Yarn,
    read_count,
    read_flag,
    read_number,
    require_value,
)

_ROPE_KEYS = ("partial_rotary_factor", "rope_theta")
_YARN = "yarn"
_YARN_KEYS = (
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
)

SPLIT_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj")}
)


def read_config(config: Mapping[str, Any]) -> DecoderConfig:
    """Read the decoder's shape from a `glm` config.json of transformers 4 or 5.

    Raises:
        UnsupportedModelError: a value is not supported; the message names it.
    """
    return build_config(config, has_post_norms=False)


def build_config(config: Mapping[str, Any], *, has_post_norms: bool) -> DecoderConfig:
    """Read the decoder's shape for `glm` and `glm4`, which differ in the post-norms only."""
    require_value(config, "hidden_act", "silu")
    rope = _read_rope(config)
    heads = read_count(config, "num_attention_heads")
    hidden = read_count(config, "hidden_size")
    head_dim = read_count(config, "head_dim", 128)
    context_length = read_count(config, "max_position_embeddings", 131_072)
    yarn = _read_yarn(rope, context_length) if rope["rope_type"] == _YARN else None
    if yarn is not None:
        context_length = max(context_length, int(yarn.factor * yarn.original_context))
    return DecoderConfig(
        num_layers=read_count(config, "num_hidden_layers"),
        hidden_size=hidden,
        intermediate_size=read_count(config, "intermediate_size"),
        num_heads=heads,
        num_kv_heads=read_count(config, "num_key_value_heads", 2),
        head_dim=head_dim,
        rotary_dim=int(head_dim * read_number(rope, "partial_rotary_factor", 0.5)),
        rope_theta=read_number(rope, "rope_theta", 10_000.0),
        rms_norm_epsilon=read_number(config, "rms_norm_eps", 1.5625e-7),
        vocab_size=read_count(config, "vocab_size"),
        context_length=context_length,
        has_qkv_bias=read_flag(config, "attention_bias", True),
        has_post_norms=has_post_norms,
        is_tied=read_flag(config, "tie_word_embeddings", False),
        yarn=yarn,
    )


def locate_parameters(config: DecoderConfig) -> dict[str, ParameterSource]:
    """Map each parameter of the decoder to its tensors; query, key and value become one matrix."""
    vocabulary = (config.vocab_size, config.hidden_size)
    found = {"embed_tokens.weight": _source("model.embed_tokens.weight", vocabulary)}
    for index in range(config.num_layers):
        for name, source in _locate_layer(config, f"model.layers.{index}.").items():
            found[f"layers.{index}.{name}"] = source
    found["norm.weight"] = _source("model.norm.weight", (config.hidden_size,))
    if not config.is_tied:
        found["lm_head.weight"] = _source("lm_head.weight", vocabulary)
    return found


def _locate_layer(config: DecoderConfig, prefix: str) -> dict[str, ParameterSource]:
    hidden, inter = config.hidden_size, config.intermediate_size
    rows = {"q": config.query_size, "k": config.key_value_size, "v": config.key_value_size}
    attention = prefix + "self_attn."
    found = {
        "qkv_proj.weight": ParameterSource(
            tuple((f"{attention}{name}_proj.weight", (n, hidden)) for name, n in rows.items())
        ),
        "o_proj.weight": _source(attention + "o_proj.weight", (hidden, config.query_size)),
        "gate_up_proj.weight": _source(prefix + "mlp.gate_up_proj.weight", (2 * inter, hidden)),
        "down_proj.weight": _source(prefix + "mlp.down_proj.weight", (hidden, inter)),
    }
    if config.has_qkv_bias:
        found["qkv_proj.bias"] = ParameterSource(
            tuple((f"{attention}{name}_proj.bias", (n,)) for name, n in rows.items())
        )
    for name in _norm_names(config):
        found[f"{name}.weight"] = _source(f"{prefix}{name}.weight", (hidden,))
    return found


def _norm_names(config: DecoderConfig) -> list[str]:
    names = ["input_layernorm", "post_attention_layernorm"]
    if config.has_post_norms:
        names += ["post_self_attn_layernorm", "post_mlp_layernorm"]
    return names


def _source(name: str, shape: tuple[int, ...]) -> ParameterSource:
    return ParameterSource(((name, shape),))


def _read_rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read rotary settings from the root (transformers 4) or `rope_parameters` (5, preferred)."""
    settings = {key: config.get(key) for key in _ROPE_KEYS} | {"rope_type": None}
    for name in ("rope_scaling", "rope_parameters"):
        nested = config.get(name)
        if nested is None:
            continue
        if not isinstance(nested, Mapping):
            raise UnsupportedModelError(
                f"config.json says {name}={nested!r}; an object is needed: check config.json."
            )
        require_value(nested, "rope_type", "default", _YARN)
        require_value(nested, "type", "default", _YARN)
        kind = nested.get("rope_type") or nested.get("type") or settings["rope_type"]
        known = (*_ROPE_KEYS, *(_YARN_KEYS if kind == _YARN else ()))
        for key in sorted(set(nested) - {"rope_type", "type", *known}):
            require_value(nested, key)
        settings |= {key: nested[key] for key in known if key in nested}
        settings["rope_type"] = kind
    return settings


def _read_yarn(rope: Mapping[str, Any], context_length: int) -> Yarn:
    """Read YaRN's settings; missing values get the defaults of transformers."""
    factor = read_number(rope, "factor", 0.0)
    attention_factor = _stretch_attention(factor)
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        shares = (read_number(rope, key, 1.0) for key in ("mscale", "mscale_all_dim"))
        one, all_ = (_stretch_attention(factor, share) for share in shares)
        attention_factor = one / all_
    return Yarn(
        factor=factor,
        original_context=read_count(rope, "original_max_position_embeddings", context_length),
        attention_factor=read_number(rope, "attention_factor", attention_factor),
        beta_fast=read_number(rope, "beta_fast", 32.0),
        beta_slow=read_number(rope, "beta_slow", 1.0),
        is_truncated=read_flag(rope, "truncate", True),
    )


def _stretch_attention(factor: float, share: float = 1.0) -> float:
    return 0.1 * share * math.log(factor) + 1.0 if factor > 1 else 1.0


ARCHITECTURE = Architecture("glm", read_config, locate_parameters, split_names=SPLIT_NAMES)
