"""The folder's config.json, as transformers and Optimum read it.

It is that of the checkpoint. `chatglm` is unknown to them without the checkpoint's code, which the
folder does not hold, and its decoder is that of `glm`; so it is described as `glm`.
"""

from collections.abc import Mapping
from typing import Any

from glm_export.model.architectures import DecoderConfig
from glm_export.tokenizer.token_ids import TokenIds

_RENAMED = "chatglm"
_KEPT = ("dtype", "torch_dtype", "transformers_version")


def build_model_config(
    source: Mapping[str, Any], config: DecoderConfig, ids: TokenIds
) -> Mapping[str, Any]:
    """Return the content of config.json for a checkpoint's config.json and its decoder."""
    if source.get("model_type") != _RENAMED:
        return source
    rotary = {
        "rope_theta": config.rope_theta,
        "partial_rotary_factor": config.rotary_dim / config.head_dim,
    }
    return {
        **{key: source[key] for key in _KEPT if key in source},
        "architectures": ["GlmForCausalLM"],
        "model_type": "glm",
        "attention_bias": config.has_qkv_bias,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.context_length,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "rms_norm_eps": config.rms_norm_epsilon,
        **rotary,
        "rope_parameters": {**rotary, **_describe_scaling(config)},
        "tie_word_embeddings": config.is_tied,
        "vocab_size": config.vocab_size,
        "bos_token_id": ids.bos,
        "eos_token_id": list(ids.eos),
        "pad_token_id": ids.pad,
    }


def _describe_scaling(config: DecoderConfig) -> dict[str, Any]:
    yarn = config.yarn
    if yarn is None:
        return {"rope_type": "default"}
    return {
        "rope_type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original_context,
        "attention_factor": yarn.attention_factor,
        "beta_fast": yarn.beta_fast,
        "beta_slow": yarn.beta_slow,
        "truncate": yarn.is_truncated,
    }
