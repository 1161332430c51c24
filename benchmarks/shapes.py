"""The model shapes that the benchmarks run at: sizes, config.json and the list of tensors.

Knows nothing about files. `random_checkpoint.py` writes what is listed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Shape:
    """One `glm4` decoder: bfloat16, sandwich norms, a head of its own; biases on q, k, v or none.

    `first_special_id` is where GLM's special tokens begin; ids past the last of them are padding.
    """

    name: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    first_special_id: int
    context_length: int
    has_bias: bool = True

    @property
    def num_weights(self) -> int:
        """Numbers in all tensors."""
        return sum(count_values(shape) for shape in list_tensors(self).values())

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors, two a number."""
        return 2 * self.num_weights


# glm-edge-1.5b with the layers of glm4; GLM-4-0414 9B and 32B; and one for smoke runs.
SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "tiny": Shape("tiny", 256, 768, 2, 4, 2, 64, 1024, 1000, 2048),
        "edge-1.5b": Shape("edge-1.5b", 2048, 6144, 28, 16, 4, 128, 59264, 59246, 8192),
        "9b": Shape("9b", 4096, 13696, 40, 32, 2, 128, 151552, 151329, 32768),
        "32b": Shape("32b", 6144, 23040, 61, 48, 2, 128, 151552, 151329, 32768, has_bias=False),
    }
)


def count_values(shape: tuple[int, ...]) -> int:
    """How many numbers a tensor of this shape holds."""
    count = 1
    for size in shape:
        count *= size
    return count


def list_tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the checkpoint, in the order of the computation."""
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocab_size, shape.hidden_size)
    }
    for index in range(shape.num_layers):
        for name, size in _list_layer(shape).items():
            tensors[f"model.layers.{index}.{name}"] = size
    tensors["model.norm.weight"] = (shape.hidden_size,)
    tensors["lm_head.weight"] = (shape.vocab_size, shape.hidden_size)
    return tensors


def _list_layer(shape: Shape) -> dict[str, tuple[int, ...]]:
    hidden, inter = shape.hidden_size, shape.intermediate_size
    query, key = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    tensors = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (query, hidden),
        "self_attn.q_proj.bias": (query,),
        "self_attn.k_proj.weight": (key, hidden),
        "self_attn.k_proj.bias": (key,),
        "self_attn.v_proj.weight": (key, hidden),
        "self_attn.v_proj.bias": (key,),
        "self_attn.o_proj.weight": (hidden, query),
        "post_self_attn_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_up_proj.weight": (2 * inter, hidden),
        "mlp.down_proj.weight": (hidden, inter),
        "post_mlp_layernorm.weight": (hidden,),
    }
    return {name: size for name, size in tensors.items() if shape.has_bias or "bias" not in name}


def describe_config(shape: Shape, eos_token_ids: list[int], pad_token_id: int) -> dict[str, object]:
    """The content of config.json, as transformers 5 writes it."""
    return {
        "architectures": ["Glm4ForCausalLM"],
        "attention_bias": shape.has_bias,
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "eos_token_id": eos_token_ids,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.context_length,
        "model_type": "glm4",
        "num_attention_heads": shape.num_heads,
        "num_hidden_layers": shape.num_layers,
        "num_key_value_heads": shape.num_kv_heads,
        "pad_token_id": pad_token_id,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "partial_rotary_factor": 0.5,
            "rope_theta": 10000.0,
            "rope_type": "default",
        },
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }
