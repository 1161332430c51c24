"""The original against its exports, on a text: what exporting and quantizing cost.

The original is the PyTorch decoder in float32, run once and layer by layer (memory: one layer, the
head, activations); then each folder is run by ONNX Runtime as it will be by its users, one at a
time. Read `inputs.py` before.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from glm_export.arrays import TokenArray
from glm_export.checkpoint.source_model import open_source
from glm_export.errors import VerificationError
from glm_export.evaluation.comparison import Comparer, Comparison
from glm_export.evaluation.inputs import (
    Candidate,
    EvaluationOptions,
    agree_on_rope,
    name_folders,
    open_candidates,
    read_text,
    split_text,
)
from glm_export.evaluation.layer_errors import LayerErrors, StateSample
from glm_export.graph.logits_session import GraphSession
from glm_export.model.layer_stream import LayerStream
from glm_export.packages import require_onnxruntime
from glm_runtime.folder.manifest import Manifest
from glm_runtime.progress import Progress, track_stage


@dataclass(frozen=True)
class FolderReport:
    """What a folder lost, and its size.

    Attributes:
        folder: where it is.
        name: what tables and plots call it.
        comparison: its logits against the original's.
        manifest: what it says of itself.
        layer_errors: relative error of the embedding's output, then of each layer's; None: they
            were not asked for.
    """

    folder: Path
    name: str
    comparison: Comparison
    manifest: Manifest
    layer_errors: tuple[float, ...] | None


@dataclass(frozen=True)
class EvaluationReport:
    """All folders, in the order they were given.

    Attributes:
        checkpoint: the original's name.
        folders: one report each.
        layer_tokens: tokens that the layers were compared at; 0: they were not.
    """

    checkpoint: str
    folders: tuple[FolderReport, ...]
    layer_tokens: int


@dataclass(frozen=True)
class _Original:
    """What the folders are compared with: windows, their final states, the head [V, C]."""

    windows: list[TokenArray]
    states: list[torch.Tensor]
    head: torch.Tensor
    sample: StateSample | None


def evaluate(options: EvaluationOptions, progress: Progress) -> EvaluationReport:
    """Compare folders with their original.

    Args:
        options: what to compare on which text.
        progress: called with (stage, done, total).

    Raises:
        ExportError: the checkpoint is broken or unsupported, or a file of a folder was changed.
        FolderError: a folder is none of ours, or of a newer format.
        OptionsError: the text is missing, not UTF-8 or too short, a folder is another model's, or
            two folders read the text differently.
    """
    require_onnxruntime()
    source = open_source(options.checkpoint, agree_on_rope(options.folders))
    config = source.config
    text = read_text(options.text)
    candidates = open_candidates(options, config, progress)
    size = min(options.window, config.context_length)
    windows = split_text(text, candidates, size, options.max_tokens)
    sample = None
    if options.has_layers:
        sample = StateSample(windows, config.num_layers + 1, config.hidden_size)
    reference = LayerStream(config, source.read_parameter)
    original = _run_original(reference, windows, sample, progress)
    return EvaluationReport(
        name_folders([options.checkpoint])[0],
        tuple(_compare(original, candidate, progress) for candidate in candidates),
        sample.tokens if sample else 0,
    )


def _run_original(
    reference: LayerStream,
    windows: list[TokenArray],
    sample: StateSample | None,
    progress: Progress,
) -> _Original:
    groups = _group_by_length(windows)
    total = len(groups) * (reference.config.num_layers + 1)
    advance = track_stage(progress, "running the original", total)
    rows: list[torch.Tensor] = []
    for batch in groups:
        for index, states in enumerate(reference.run(batch)):
            advance(1)
            if sample is not None:
                sample.keep(index, states)
        rows += reference.normalise(states)
    return _Original(windows, rows, reference.read_head(), sample)


@torch.inference_mode()
def _compare(original: _Original, candidate: Candidate, progress: Progress) -> FolderReport:
    """Run one folder; its session is closed when this returns."""
    comparer = Comparer()
    errors = LayerErrors(original.sample) if original.sample else None
    try:
        session = GraphSession(candidate.folder, candidate.graph)
        advance = track_stage(progress, f"running {candidate.name}", len(original.windows))
        for index, window in enumerate(original.windows):
            logits, states = session.compute_states(window[None])
            expected = original.states[index] @ original.head.T
            comparer.add(expected, torch.from_numpy(logits[0]), torch.from_numpy(window))
            if errors is not None:
                errors.add(index, states)
            advance(1)
        comparison = comparer.summarize()
        layer_errors = errors.summarize() if errors else None
        _require_finite(comparison, layer_errors or ())
    except VerificationError as error:
        raise VerificationError(f"in {candidate.folder}, {error}") from error
    return FolderReport(
        candidate.folder, candidate.name, comparison, candidate.manifest, layer_errors
    )


def _require_finite(comparison: Comparison, layer_errors: tuple[float, ...]) -> None:
    named = {f"layer error {index}": error for index, error in enumerate(layer_errors)}
    for name, value in (asdict(comparison) | named).items():
        if not math.isfinite(value):
            raise VerificationError(
                f"{name} came out as {value}, so one of the two computes NaN or Inf; "
                "check that the checkpoint's weights are sound."
            )


def _group_by_length(windows: list[TokenArray]) -> list[TokenArray]:
    """Whole windows as one batch, a shorter last one as another: layers are then read twice."""
    groups: dict[int, list[TokenArray]] = {}
    for window in windows:
        groups.setdefault(len(window), []).append(window)
    return [np.stack(group) for group in groups.values()]
