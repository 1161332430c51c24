"""Perplexity on the evaluation text: plain windows that do not overlap, no special tokens."""

import math
import re

import torch
from settings import EVALUATION
from torch.nn import functional as F
from transformers import Glm4ForCausalLM, PreTrainedTokenizerBase

_WINDOW = 512
_BATCH = 8


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
