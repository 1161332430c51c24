"""One factory of tiny random GLM checkpoints, saved by transformers itself.

Weights are larger than a fresh model's, so that logits differ visibly and a misplaced tensor
cannot hide behind small numbers; norms and biases are random too.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import Glm4Config, Glm4ForCausalLM, GlmConfig, GlmForCausalLM, PreTrainedModel

SPECIAL_TOKENS = ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@dataclass(frozen=True)
class TinyShape:
    """What differs between tiny models; names are config.json's."""

    model_type: str = "glm4"
    hidden_size: int = 128
    intermediate_size: int = 256
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    partial_rotary_factor: float = 0.5
    attention_bias: bool = True
    tie_word_embeddings: bool = False
    vocab_size: int = 320
    max_position_embeddings: int = 512
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5
    eos_token_ids: tuple[int, ...] = (256, 260)


def build_model(shape: TinyShape, seed: int = 0) -> PreTrainedModel:
    """A random transformers model, float32, in evaluation mode."""
    torch.manual_seed(seed)
    fields = asdict(shape)
    rope = {
        "rope_type": "default",
        "rope_theta": fields.pop("rope_theta"),
        "partial_rotary_factor": fields.pop("partial_rotary_factor"),
    }
    kind = {"glm": (GlmConfig, GlmForCausalLM), "glm4": (Glm4Config, Glm4ForCausalLM)}
    config_class, model_class = kind[fields.pop("model_type")]
    eos = list(fields.pop("eos_token_ids"))
    config = config_class(**fields, rope_parameters=rope, pad_token_id=256, eos_token_id=eos)
    config._attn_implementation = "sdpa"
    model = model_class(config).eval().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean, deviation = (1.0, 0.3) if "norm" in name else (0.0, 0.08)
            parameter.normal_(mean, deviation)
    return model


def write_checkpoint(
    folder: Path, model: PreTrainedModel, dtype: torch.dtype | None = None
) -> Path:
    """Save a model with a byte-level tokenizer and a chat template, as a hub folder has them."""
    stored = model if dtype is None else model.to(dtype)
    stored.save_pretrained(folder)
    build_tokenizer().save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|user|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def use_older_layout(folder: Path) -> None:
    """Rewrite config.json as transformers 4.51 has it: no `rope_parameters`, `torch_dtype`.

    Compared by hand with what 4.57's `save_pretrained` writes of these models: it is the same but
    for the version and `dtype`, as the later versions of 4 name it.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope["rope_theta"]
    config["partial_rotary_factor"] = rope["partial_rotary_factor"]
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.51.3"
    del config["bos_token_id"]
    path.write_text(json.dumps(config, indent=2))


def build_tokenizer() -> Tokenizer:
    """Ids 0-255 are the bytes, 256 on the special tokens: 262 ids in a padded vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer
