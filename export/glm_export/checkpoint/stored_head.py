"""A head that a checkpoint stores although config.json ties it to the embedding.

Every `pytorch_model.bin` of a tied model holds both, as do some released checkpoints. transformers
drops a head that equals the embedding and keeps one that differs.
Source: `tie_weights` in transformers' `modeling_utils.py` (5.23).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.model.architectures import Architecture, DecoderConfig, ParameterSource

_HEAD, _EMBEDDING = "lm_head.weight", "embed_tokens.weight"


@dataclass(frozen=True)
class Located:
    """The decoder's shape and the sources of its parameters, once the head is settled.

    Attributes:
        config: shape of the decoder; untied if the stored head differs from the embedding.
        parameters: sources of the parameters.
        dropped: names of stored tensors that are not needed.
        note: a sentence for the user; "" if nothing was decided.
    """

    config: DecoderConfig
    parameters: Mapping[str, ParameterSource]
    dropped: tuple[str, ...] = ()
    note: str = ""


def locate_with_head(
    checkpoint: Checkpoint, architecture: Architecture, config: DecoderConfig
) -> Located:
    """Locate the parameters; a stored head beside tied embeddings is dropped or kept.

    Raises:
        CheckpointError: the head or the embedding cannot be read.
    """
    parameters = architecture.locate_parameters(config)
    if not config.is_tied:
        return Located(config, parameters)
    untied = replace(config, is_tied=False)
    with_head = architecture.locate_parameters(untied)
    (head, _), (embedding, _) = (with_head[name].tensors[0] for name in (_HEAD, _EMBEDDING))
    if not _is_stored(checkpoint, head):
        return Located(config, parameters)
    if not _is_stored(checkpoint, embedding):
        return Located(config, {**parameters, _EMBEDDING: with_head[_HEAD]})
    if _are_equal(checkpoint, head, embedding):
        return Located(config, parameters, (head,))
    note = (
        f"config.json says tie_word_embeddings=true, but {head} differs from {embedding}; both "
        "were kept, as in transformers 5."
    )
    return Located(untied, with_head, (), note)


def _is_stored(checkpoint: Checkpoint, name: str) -> bool:
    """Return True if a tensor is stored, as floats or quantized."""
    module = name.removesuffix("weight")
    return any(stored.startswith(module) for stored in checkpoint.tensors)


def _are_equal(checkpoint: Checkpoint, first: str, second: str) -> bool:
    """Compare two tensors row by row; tensors of other types than floats are never equal."""
    one, other = (checkpoint.tensors.get(name) for name in (first, second))
    if one is None or other is None or one.shape != other.shape:
        return False
    if not (one.is_float and other.is_float):
        return False
    if (one.path, one.offset_bytes, one.dtype) == (other.path, other.offset_bytes, other.dtype):
        return True
    return all(
        np.array_equal(checkpoint.read_rows(first, *rows), checkpoint.read_rows(second, *rows))
        for rows in checkpoint.iterate_chunks(first)
    )
