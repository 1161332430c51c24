"""A checkpoint with its config and headers, read and checked. Every command starts with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from glm_export.checkpoint.adapters import (
    Adapter,
    OpenAdapter,
    describe_target,
    merge_adapters,
    open_adapters,
    select_changes,
)
from glm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from glm_export.checkpoint.file_states import FileStates
from glm_export.checkpoint.parameters import ParameterRows
from glm_export.checkpoint.prequantized import QuantizedMatrix
from glm_export.checkpoint.quantized_source import find_quantized
from glm_export.checkpoint.split_sources import split_sources
from glm_export.checkpoint.stored_head import Located, locate_with_head
from glm_export.checkpoint.tensor_check import check_tensors
from glm_export.checkpoint.tensor_names import add_base_name
from glm_export.errors import UnsupportedModelError
from glm_export.model.architectures import (
    Architecture,
    DecoderConfig,
    ParameterSource,
    find_architecture,
)
from glm_export.model.architectures.rope_settings import describe_conflict
from glm_quantize import FloatArray
from glm_runtime.errors import to_printable


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
        adapters: LoRA adapters that are merged into the checkpoint's tensors.
        notes: sentences that the user should read.
    """

    checkpoint: Checkpoint
    model_type: str
    config: DecoderConfig
    parameters: Mapping[str, ParameterSource]
    stored_format: str
    matrices: Mapping[str, QuantizedMatrix]
    adapters: tuple[OpenAdapter, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def states(self) -> FileStates:
        """States of all files of the checkpoint and the adapters when they were opened."""
        of_all = dict(self.checkpoint.states.by_path)
        for adapter in self.adapters:
            of_all |= adapter.stored.states.by_path
        return FileStates(of_all)

    def require_unchanged(self) -> None:
        """Refuse a checkpoint or an adapter that is not the one that was opened.

        Raises:
            CheckpointError: a file was changed, replaced or removed.
        """
        self.checkpoint.require_unchanged()
        for adapter in self.adapters:
            adapter.stored.states.require_unchanged(adapter.files.values())

    def read_parameter(self, name: str) -> FloatArray:
        """A parameter [N, C] or [N] of the decoder as float32, dequantized if it is quantized."""
        if name in self.matrices:
            return self.matrices[name].read_weight()
        return ParameterRows(self.checkpoint, self.parameters).read(name)


def open_source(
    folder: Path,
    changes: Mapping[str, Any] = MappingProxyType({}),
    adapters: Sequence[Adapter] = (),
) -> SourceModel:
    """Read config.json and every header of a checkpoint, and check them against each other.

    Args:
        folder: folder of the checkpoint.
        changes: values that replace those of config.json, or None to remove one; see
            `rope_options.py`.
        adapters: LoRA adapters to merge into the checkpoint's tensors.

    Raises:
        CheckpointError: a file or tensor is missing, broken or unexpected.
        UnsupportedModelError: the exporter does not support a value of config.json.
    """
    checkpoint = open_checkpoint(folder, [adapter.folder for adapter in adapters])
    checkpoint = replace(checkpoint, config=_change(checkpoint.config, changes))
    architecture = find_architecture(checkpoint.config)
    config = architecture.read_config(checkpoint.config)
    checkpoint, located = _locate(checkpoint, architecture, config)
    parameters = split_sources(located.parameters, checkpoint.tensors, architecture.split_names)
    quantized = find_quantized(checkpoint, parameters)
    stored_in = {name: matrix.tensors for name, matrix in quantized.matrices.items()}
    ignored = {*architecture.ignored, *located.dropped, *quantized.others}
    check_tensors(quantized.checkpoint, parameters, stored_in, ignored)
    conflict = describe_conflict(checkpoint.config)
    notes = (checkpoint.files.note, located.note, quantized.note, conflict)
    source = SourceModel(
        checkpoint=quantized.checkpoint,
        model_type=architecture.model_type,
        config=located.config,
        parameters=parameters,
        stored_format=quantized.stored_format,
        matrices=quantized.matrices,
        notes=tuple(to_printable(note) for note in notes if note),
    )
    return _merge(source, adapters, architecture) if adapters else source


def _merge(
    source: SourceModel, adapters: Sequence[Adapter], architecture: Architecture
) -> SourceModel:
    if source.matrices:
        raise UnsupportedModelError(
            f"the checkpoint is quantized already ({source.stored_format}), and adapter "
            f"{adapters[0].folder} cannot be merged into its codes without new rounding; give the "
            "checkpoint that is not quantized and the same --adapter."
        )
    target = describe_target(source.parameters, architecture.split_names)
    opened = tuple(select_changes(target, adapter) for adapter in open_adapters(adapters))
    checkpoint = merge_adapters(source.checkpoint, target, opened)
    return replace(
        source,
        checkpoint=checkpoint,
        adapters=opened,
        notes=(*source.notes, *(to_printable(adapter.note) for adapter in opened)),
    )


def _change(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    removed = {key for key, value in changes.items() if value is None}
    return {key: value for key, value in {**config, **changes}.items() if key not in removed}


def _locate(
    checkpoint: Checkpoint, architecture: Architecture, config: DecoderConfig
) -> tuple[Checkpoint, Located]:
    """Locate the parameters; names and config.json are then those of the whole, settled model."""
    embedding = architecture.locate_parameters(config)["embed_tokens.weight"].tensors[0][0]
    checkpoint = replace(checkpoint, tensors=add_base_name(checkpoint.tensors, embedding))
    located = locate_with_head(checkpoint, architecture, config)
    if located.config.is_tied != config.is_tied:
        changed = {**checkpoint.config, "tie_word_embeddings": located.config.is_tied}
        checkpoint = replace(checkpoint, config=changed)
    return checkpoint, located
