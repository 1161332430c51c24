"""`chatglm` checkpoints made of transformers' own `glm` models: the same numbers, other names.

Names and row orders are those of the released `modeling_chatglm.py`: query, key, value in one
tensor, gate before up.
"""

import base64
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from support.tiny_models import TEMPLATE, build_tokenizer

NAMES = {
    "self_attn.o_proj": "self_attention.dense",
    "mlp.gate_up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
    "input_layernorm": "input_layernorm",
    "post_attention_layernorm": "post_attention_layernorm",
}


def rename_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """The model's tensors, as a chatglm checkpoint names and packs them."""
    state = model.state_dict()
    found = {
        "transformer.embedding.word_embeddings.weight": state["model.embed_tokens.weight"],
        "transformer.encoder.final_layernorm.weight": state["model.norm.weight"],
        "transformer.output_layer.weight": state["lm_head.weight"],
        "transformer.rotary_pos_emb.inv_freq": torch.ones(8),
    }
    for index in range(model.config.num_hidden_layers):
        old, new = f"model.layers.{index}.", f"transformer.encoder.layers.{index}."
        for before, after in NAMES.items():
            found[f"{new}{after}.weight"] = state[f"{old}{before}.weight"]
        for kind in ("weight", "bias"):
            parts = [state[f"{old}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            found[f"{new}self_attention.query_key_value.{kind}"] = torch.cat(parts)
    return {name: tensor.clone() for name, tensor in found.items()}


def build_config(model: PreTrainedModel, rope_ratio: float) -> dict[str, Any]:
    """config.json as the released models have it."""
    config = model.config
    return {
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "auto_map": {"AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration"},
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "apply_query_key_layer_scaling": True,
        "apply_residual_connection_post_layernorm": False,
        "attention_softmax_in_fp32": True,
        "ffn_hidden_size": config.intermediate_size,
        "hidden_size": config.hidden_size,
        "kv_channels": config.head_dim,
        "layernorm_epsilon": config.rms_norm_eps,
        "multi_query_attention": True,
        "multi_query_group_num": config.num_key_value_heads,
        "num_attention_heads": config.num_attention_heads,
        "num_layers": config.num_hidden_layers,
        "original_rope": True,
        "padded_vocab_size": config.vocab_size,
        "post_layer_norm": True,
        "rmsnorm": True,
        "rope_ratio": rope_ratio,
        "seq_length": config.max_position_embeddings,
        "tie_word_embeddings": False,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": 256,
    }


def write_chatglm(
    folder: Path, model: PreTrainedModel, rope_ratio: float, weights: str = "safetensors"
) -> Path:
    """A folder as the hub has it; `weights` "safetensors", or "bin": two shards and an index."""
    folder.mkdir()
    tensors = rename_tensors(model)
    if weights == "safetensors":
        save_file(tensors, folder / "model.safetensors")
    else:
        write_shards(folder, tensors)
    (folder / "config.json").write_text(json.dumps(build_config(model, rope_ratio)))
    (folder / "modeling_chatglm.py").write_text("raise RuntimeError('code of a checkpoint ran')\n")
    build_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def use_tokenizer_model(folder: Path) -> None:
    """tokenizer.model in place of tokenizer.json and template: every byte a token."""
    (folder / "tokenizer.json").unlink()
    (folder / "chat_template.jinja").unlink()
    lines = (b"%s %d\n" % (base64.b64encode(bytes([byte])), byte) for byte in range(256))
    (folder / "tokenizer.model").write_bytes(b"".join(lines))


def write_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """pytorch_model-0000N-of-00002.bin and their index."""
    names = sorted(tensors)
    weight_map = {}
    for number, half in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({name: tensors[name] for name in half}, folder / file)
        weight_map |= dict.fromkeys(half, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
