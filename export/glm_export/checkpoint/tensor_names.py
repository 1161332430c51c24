"""Names of tensors: wrappers of training programs in front of them, and tables that are computed.

A wrapper such as torch.compile or DistributedDataParallel puts its own name before the names of the
module inside and changes nothing else.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

_HEAD = "lm_head."

# torch.compile; DistributedDataParallel and DeepSpeed; PEFT's model around another; Lightning.
_OUTER = re.compile(r"^(?:_orig_mod\.|module\.|base_model\.model\.|_forward_module\.)+")
# The same inside a name, and PyTorch's FSDP and activation checkpointing.
_INNER = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Source: `_adjust_missing_and_unexpected_keys` in transformers' `modeling_utils.py`.
_COMPUTED = re.compile(r"rotary_emb\.inv_freq$")


def strip_wrappers(name: str) -> str:
    """Return the name without the names of wrappers."""
    return _INNER.sub("", _OUTER.sub("", name))


def add_base_name(tensors: Mapping[str, T], embedding: str) -> Mapping[str, T]:
    """Give tensors saved from the model without its head the names that the whole model gives them.

    Args:
        tensors: tensors by name.
        embedding: name of the embedding in the whole model, for example
            `model.embed_tokens.weight`.

    Returns:
        The same tensors, named `model....` if the embedding is there without `model.` only. A head
        `lm_head` keeps its name, since it stands beside the base model, as in transformers.
    """
    base, _, inner = embedding.partition(".")
    if embedding in tensors or inner not in tensors:
        return tensors
    return {
        name if name.startswith(_HEAD) else f"{base}.{name}": tensor
        for name, tensor in tensors.items()
    }


def is_computed(name: str) -> bool:
    """Return True for a table that follows from config.json and that old checkpoints hold."""
    return _COMPUTED.search(name) is not None
