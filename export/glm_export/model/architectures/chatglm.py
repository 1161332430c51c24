"""`chatglm`: ChatGLM2-6B, ChatGLM3-6B, and GLM-4-9B, -chat and -chat-1M as first released.

The decoder is that of `glm` with other tensor names. The checkpoint already joins query, key and
value rows in one tensor, and gate and up rows in another. These checkpoints contain Python code,
which is never run. ChatGLM-6B, the first of that name, is a different model and is refused.
Source: the published config.json files and `modeling_chatglm.py` of the named models.
"""

from collections.abc import Mapping
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

_ROPE_THETA = 10_000.0
_SAVED_TABLES = ("transformer.rotary_pos_emb.inv_freq",)


def read_config(config: Mapping[str, Any]) -> DecoderConfig:
    """Read the decoder's shape from a `chatglm` config.json.

    `rope_ratio` multiplies the base of the rotary embedding; it is 500 in GLM-4-9B-chat. The
    released checkpoints have no other rotary settings; our options write YaRN and a base into
    `rope_parameters`.

    Raises:
        UnsupportedModelError: a value is not supported; the message names it.
    """
    for key, value in (
        ("rmsnorm", True),
        ("post_layer_norm", True),
        ("original_rope", True),
        ("add_bias_linear", False),
        ("apply_residual_connection_post_layernorm", False),
        ("interleaved_qkv", False),
    ):
        require_value(config, key, value)
    for key in ("quantization_bit", "pre_seq_len"):
        require_value(config, key, 0)
    heads = read_count(config, "num_attention_heads")
    groups = heads
    if read_flag(config, "multi_query_attention", False):
        groups = read_count(config, "multi_query_group_num", 1)
    head_dim = read_count(config, "kv_channels", 128)
    theta = _ROPE_THETA * read_number(config, "rope_ratio", 1.0)
    context_length = read_count(config, "seq_length", 2048)
    rope = read_rope({**config, "rope_theta": theta}, context_length)
    if rope.yarn is not None:
        stretched = int(rope.yarn.factor * rope.yarn.original_context)
        context_length = max(context_length, stretched)
    return DecoderConfig(
        num_layers=read_count(config, "num_layers"),
        hidden_size=read_count(config, "hidden_size"),
        intermediate_size=read_count(config, "ffn_hidden_size"),
        num_heads=heads,
        num_kv_heads=groups,
        head_dim=head_dim,
        rotary_dim=int(head_dim * rope.partial_factor),
        rope_theta=rope.theta,
        rms_norm_epsilon=read_number(config, "layernorm_epsilon", 1e-5),
        vocab_size=read_count(config, "padded_vocab_size"),
        context_length=context_length,
        has_qkv_bias=read_flag(config, "add_qkv_bias", False),
        has_post_norms=False,
        is_tied=read_flag(config, "tie_word_embeddings", False),
        yarn=rope.yarn,
    )


def locate_parameters(config: DecoderConfig) -> dict[str, ParameterSource]:
    """Map each parameter of the decoder to its tensor in the checkpoint, in the order of `glm`."""
    hidden, inter = config.hidden_size, config.intermediate_size
    packed = config.query_size + 2 * config.key_value_size
    vocabulary = (config.vocab_size, hidden)
    shapes = {
        "qkv_proj.weight": ("self_attention.query_key_value.weight", (packed, hidden)),
        "o_proj.weight": ("self_attention.dense.weight", (hidden, config.query_size)),
        "gate_up_proj.weight": ("mlp.dense_h_to_4h.weight", (2 * inter, hidden)),
        "down_proj.weight": ("mlp.dense_4h_to_h.weight", (hidden, inter)),
        "qkv_proj.bias": ("self_attention.query_key_value.bias", (packed,)),
        "input_layernorm.weight": ("input_layernorm.weight", (hidden,)),
        "post_attention_layernorm.weight": ("post_attention_layernorm.weight", (hidden,)),
    }
    if not config.has_qkv_bias:
        del shapes["qkv_proj.bias"]
    found = {"embed_tokens.weight": _source("embedding.word_embeddings.weight", vocabulary)}
    for index in range(config.num_layers):
        for name, (stored, shape) in shapes.items():
            found[f"layers.{index}.{name}"] = _source(f"encoder.layers.{index}.{stored}", shape)
    found["norm.weight"] = _source("encoder.final_layernorm.weight", (hidden,))
    if not config.is_tied:
        found["lm_head.weight"] = _source("output_layer.weight", vocabulary)
    return found


def _source(name: str, shape: tuple[int, ...]) -> ParameterSource:
    return ParameterSource(((f"transformer.{name}", shape),))


ARCHITECTURE = Architecture("chatglm", read_config, locate_parameters, _SAVED_TABLES)
