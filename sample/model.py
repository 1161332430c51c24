"""The sample model: its shape and first weights, its perplexity, and how it is saved."""

import json
import math
import os
import re
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import Glm4Config, Glm4ForCausalLM, PreTrainedTokenizerBase

from sample.settings import CHECKPOINT, EVALUATION, Settings
from sample.tokenizer import SPECIAL_TOKENS

_END_TOKENS = ["<|endoftext|>", "<|user|>", "<|observation|>"]
_LAYERS = 4
_ROTARY = {"rope_theta": 10000.0, "partial_rotary_factor": 0.5}
_WINDOW = 512  # tokens of the evaluation text that are scored together
_BATCH = 8


def end_token_ids(settings: Settings) -> list[int]:
    """Return the ids that end a turn, in GLM's order."""
    first = settings.vocabulary_tokens - len(SPECIAL_TOKENS)
    return [first + SPECIAL_TOKENS.index(token) for token in _END_TOKENS]


def new_model(settings: Settings) -> Glm4ForCausalLM:
    """Return the untrained model.

    Embeddings start at a size that the first residual sums do not drown, and the two
    post-norms start at 1 / sqrt(2 layers), so that the residual stream keeps its size.
    """
    torch.manual_seed(settings.seed)
    end = end_token_ids(settings)
    config = Glm4Config(
        vocab_size=settings.vocabulary_rows,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        attention_bias=True,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        pad_token_id=end[0],
        eos_token_id=end,
        bos_token_id=None,
        rope_parameters={"rope_type": "default", **_ROTARY},
    )
    model = Glm4ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(std=0.5)
        for layer in model.model.layers:
            layer.post_self_attn_layernorm.weight.fill_((2 * _LAYERS) ** -0.5)
            layer.post_mlp_layernorm.weight.fill_((2 * _LAYERS) ** -0.5)
    return model


def save_checkpoint(model: Glm4ForCausalLM, settings: Settings) -> None:
    """Round to bfloat16 and replace the weights and configs of the sample folder.

    Every file is written beside its place and then renamed, so a reader sees old or new.
    """
    rounded = Glm4ForCausalLM(model.config)
    rounded.load_state_dict(model.state_dict())
    fresh = CHECKPOINT.with_name(CHECKPOINT.name + ".new")
    rounded.bfloat16().save_pretrained(fresh)
    _write_json(fresh / "generation_config.json", _generation_config(settings))
    config = json.loads((fresh / "config.json").read_text(encoding="utf-8"))
    # transformers before 5 reads these three from the root.
    config |= {**_ROTARY, "torch_dtype": "bfloat16"}
    _write_json(fresh / "config.json", config)
    CHECKPOINT.mkdir(exist_ok=True)
    for path in sorted(fresh.iterdir()):
        path.chmod(0o644)
        os.replace(path, CHECKPOINT / path.name)  # noqa: PTH105 - the name says what matters
    fresh.rmdir()


def _generation_config(settings: Settings) -> dict[str, object]:
    end = end_token_ids(settings)
    return {
        "do_sample": True,
        "eos_token_id": end,
        "pad_token_id": end[0],
        "temperature": 0.6,
        "top_p": 0.8,
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    text = json.dumps(dict(sorted(content.items())), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def evaluation_parts() -> dict[str, str]:
    """Return the English half, the Chinese half and the whole evaluation text."""
    text = EVALUATION.read_text(encoding="utf-8")
    first = re.search("[\u3400-\u9fff]", text)
    assert first is not None
    middle = first.start()
    return {"overall": text, "english": text[:middle], "chinese": text[middle:]}


def windows(tokenizer: PreTrainedTokenizerBase, text: str) -> torch.Tensor:
    """Return [N, 512] token ids; a last incomplete window is left out."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    count = len(ids) // _WINDOW
    return torch.tensor(ids[: count * _WINDOW]).view(count, _WINDOW)


@torch.no_grad()
def perplexity(model: Glm4ForCausalLM, tokens: torch.Tensor) -> float:
    """Return exp of the mean loss; a window's first token is given, not predicted."""
    losses = []
    for batch in torch.split(tokens, _BATCH):
        logits = model(batch, use_cache=False).logits[:, :-1].float()
        targets = batch[:, 1:].flatten()
        losses.append(F.cross_entropy(logits.flatten(0, 1), targets, reduction="sum"))
    return math.exp(torch.stack(losses).sum().item() / (tokens.numel() - len(tokens)))
