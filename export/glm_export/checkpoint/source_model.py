"""A checkpoint with all that its config and headers say: the start of every command."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from glm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from glm_export.checkpoint.prequantized import QuantizedMatrix, find_format, find_matrices
from glm_export.model.architectures import (
    DecoderConfig,
    ParameterSource,
    check_tensors,
    find_architecture,
)


@dataclass(frozen=True)
class SourceModel:
    """A checkpoint whose tensors are all there and have the right shapes.

    Attributes:
        checkpoint: the files.
        model_type: as config.json names it.
        config: the decoder's shape.
        parameters: where each parameter lies.
        stored_format: how it is quantized already ("gptq", ...), "" if it is float.
        matrices: the parameters that are quantized already.
    """

    checkpoint: Checkpoint
    model_type: str
    config: DecoderConfig
    parameters: Mapping[str, ParameterSource]
    stored_format: str
    matrices: Mapping[str, QuantizedMatrix]


def open_source(folder: Path, changes: Mapping[str, Any] = MappingProxyType({})) -> SourceModel:
    """Read config.json and every header of a checkpoint, and check them against each other.

    Args:
        folder: the checkpoint.
        changes: of config.json's values; see `rope_options.py`.

    Raises:
        CheckpointError: a file or tensor is missing, broken or surplus.
        UnsupportedModelError: a config value that this exporter does not support, by name.
    """
    checkpoint = open_checkpoint(folder)
    checkpoint = replace(checkpoint, config={**checkpoint.config, **changes})
    architecture = find_architecture(checkpoint)
    config = architecture.read_config(checkpoint.config)
    parameters = architecture.locate_parameters(config)
    stored = find_format(checkpoint.config)
    matrices = find_matrices(checkpoint, stored, parameters) if stored else {}
    stored_in = {name: matrix.tensors for name, matrix in matrices.items()}
    check_tensors(checkpoint, parameters, stored_in, architecture.ignored)
    method = stored.method if stored else ""
    return SourceModel(checkpoint, architecture.model_type, config, parameters, method, matrices)
