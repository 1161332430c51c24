"""`glm`: GLM-4-9B (-hf), GLM-Edge. Pre-norm layers, interleaved partial rotary embedding.

Source: the published config.json files, and transformers' `models/glm/configuration_glm.py` for
the defaults of absent values.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from glm_export.model.architectures.description import (
    Architecture,
    DecoderConfig,
    ParameterSource,
    read_count,
    read_flag,
    read_number,
    require_value,
)
from glm_export.model.architectures.rope_settings import read_rope

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
    heads = read_count(config, "num_attention_heads")
    hidden = read_count(config, "hidden_size")
    head_dim = read_count(config, "head_dim", 128)
    context_length = read_count(config, "max_position_embeddings", 131_072)
    rope = read_rope(config, context_length)
    yarn = rope.yarn
    if yarn is not None:
        context_length = max(context_length, int(yarn.factor * yarn.original_context))
    return DecoderConfig(
        num_layers=read_count(config, "num_hidden_layers"),
        hidden_size=hidden,
        intermediate_size=read_count(config, "intermediate_size"),
        num_heads=heads,
        num_kv_heads=read_count(config, "num_key_value_heads", 2),
        head_dim=head_dim,
        rotary_dim=int(head_dim * rope.partial_factor),
        rope_theta=rope.theta,
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


ARCHITECTURE = Architecture("glm", read_config, locate_parameters, split_names=SPLIT_NAMES)
