"""A checkpoint with its config and headers, read and checked. Every command starts with it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from glm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from glm_export.checkpoint.parameters import ParameterRows
from glm_export.checkpoint.prequantized import QuantizedMatrix, find_format, find_matrices
from glm_export.checkpoint.split_sources import split_sources
from glm_export.errors import CheckpointError
from glm_export.model.architectures import (
    DecoderConfig,
    ParameterSource,
    find_architecture,
)
from glm_quantize import FloatArray


@dataclass(frozen=True)
class SourceModel:
    """A checkpoint that has all tensors in the right shapes.

    Attributes:
        checkpoint: the files.
        model_type: model type from config.json.
        config: shape of the decoder.
        parameters: tensors of the checkpoint that make up each parameter of the decoder.
        stored_format: quantized format, for example "gptq"; "" if the checkpoint is float.
        matrices: parameters that the checkpoint holds quantized.
        notes: sentences that the user should read.
    """

    checkpoint: Checkpoint
    model_type: str
    config: DecoderConfig
    parameters: Mapping[str, ParameterSource]
    stored_format: str
    matrices: Mapping[str, QuantizedMatrix]
    notes: tuple[str, ...] = ()

    def read_parameter(self, name: str) -> FloatArray:
        """A parameter [N, C] or [N] of the decoder as float32, dequantized if it is quantized."""
        if name in self.matrices:
            return self.matrices[name].read_weight()
        return ParameterRows(self.checkpoint, self.parameters).read(name)


def open_source(folder: Path, changes: Mapping[str, Any] = MappingProxyType({})) -> SourceModel:
    """Read config.json and every header of a checkpoint, and check them against each other.

    Args:
        folder: folder of the checkpoint.
        changes: values that replace those of config.json; see `rope_options.py`.

    Raises:
        CheckpointError: a file or tensor is missing, broken or unexpected.
        UnsupportedModelError: the exporter does not support a value of config.json.
    """
    checkpoint = open_checkpoint(folder)
    checkpoint = replace(checkpoint, config={**checkpoint.config, **changes})
    architecture = find_architecture(checkpoint.config)
    config = architecture.read_config(checkpoint.config)
    parameters = split_sources(
        architecture.locate_parameters(config), checkpoint.tensors, architecture.split_names
    )
    stored = find_format(checkpoint.config)
    matrices = find_matrices(checkpoint, stored, parameters) if stored else {}
    stored_in = {name: matrix.tensors for name, matrix in matrices.items()}
    _check_tensors(checkpoint, parameters, stored_in, architecture.ignored)
    method = stored.method if stored else ""
    notes = tuple(note for note in (checkpoint.files.note,) if note)
    return SourceModel(
        checkpoint, architecture.model_type, config, parameters, method, matrices, notes
    )


def _check_tensors(
    checkpoint: Checkpoint,
    parameters: Mapping[str, ParameterSource],
    quantized: Mapping[str, Collection[str]],
    ignored: Collection[str],
) -> None:
    """Every expected tensor is there with its shape, and no other.

    Args:
        checkpoint: what is there.
        parameters: what is expected.
        quantized: parameter -> the tensors, checked already, that stand in place of its floats.
        ignored: may be there or not.

    Raises:
        CheckpointError: names the tensor, and the two shapes where they differ.
    """
    expected = {
        name: shape
        for parameter, source in parameters.items()
        if parameter not in quantized
        for name, shape in source.tensors
    }
    for name, shape in expected.items():
        found = checkpoint.tensors.get(name)
        if found is None:
            raise CheckpointError(
                f"{name} {list(shape)} is missing; check that all weight files are in "
                f"{checkpoint.folder}, are named by its index if it has one, and belong to this "
                "config.json."
            )
        if found.shape != shape:
            raise CheckpointError(
                f"{name} is {list(found.shape)} but config.json makes it {list(shape)}; "
                "check that both come from the same revision."
            )
        found.require_float()
    surplus = sorted(set(checkpoint.tensors).difference(expected, ignored, *quantized.values()))
    if surplus:
        raise CheckpointError(
            f"{len(surplus)} tensors do not belong to this model, the first is {surplus[0]}; "
            "check that config.json and the weights come from the same revision."
        )
