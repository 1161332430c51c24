"""Evaluation: compares exported folders with their original checkpoint on a text.

The PyTorch decoder runs the original in float32 once, layer by layer, so memory holds one layer,
the head and activations. ONNX Runtime then runs one folder after the other. Read `inputs.py`
before.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from glm_export.checkpoint.source_model import open_source
from glm_export.errors import OutputError, VerificationError
from glm_export.evaluation.comparison import Comparer, Comparison, WindowSums
from glm_export.evaluation.inputs import (
    Candidate,
    EvaluationOptions,
    agree_on_rope,
    list_adapter_notes,
    name_folders,
    open_candidates,
    read_text,
    split_text,
)
from glm_export.evaluation.layer_errors import LayerErrors, StateSample
from glm_export.evaluation.task_metrics import TaskMetric, TaskOptions
from glm_export.graph.logits_session import GraphSession
from glm_export.model.layer_stream import LayerStream
from glm_export.packages import require_lm_eval, require_onnxruntime
from glm_runtime.arrays import TokenArray
from glm_runtime.folder.manifest import Manifest
from glm_runtime.progress import Progress, track_stage

if TYPE_CHECKING:
    from glm_export.evaluation.tasks import OpenTasks


@dataclass(frozen=True)
class FolderReport:
    """Figures of one folder.

    Attributes:
        folder: path of the folder.
        name: name in tables and plots.
        comparison: comparison of its logits with the original's.
        manifest: manifest of the folder.
        layer_errors: relative errors of the outputs of the embedding and each layer; None if they
            were not requested.
        windows: sums of each window, for confidence intervals.
        tasks: what the folder reached in lm-eval's tasks.
    """

    folder: Path
    name: str
    comparison: Comparison
    manifest: Manifest
    layer_errors: tuple[float, ...] | None
    windows: WindowSums | None = None
    tasks: tuple[TaskMetric, ...] = ()


@dataclass(frozen=True)
class EvaluationReport:
    """Figures of all folders, in the order given.

    Attributes:
        checkpoint: name of the original.
        folders: figures of each folder.
        layer_tokens: number of tokens for the layer errors; 0 if they were not requested.
        notes: sentences about the checkpoint that the user should read.
        tasks: what the original reached in lm-eval's tasks.
    """

    checkpoint: str
    folders: tuple[FolderReport, ...]
    layer_tokens: int
    notes: tuple[str, ...] = ()
    tasks: tuple[TaskMetric, ...] = ()


@dataclass(frozen=True)
class _Original:
    """The original's results: windows, their final hidden states, and the head [V, C]."""

    windows: list[TokenArray]
    states: list[torch.Tensor]
    head: torch.Tensor
    sample: StateSample | None


def evaluate(options: EvaluationOptions, progress: Progress) -> EvaluationReport:
    """Compare folders with their original.

    Args:
        options: folders, text and windows.
        progress: called with (stage, done, total).

    Raises:
        ExportError: the checkpoint is broken or not supported, or a file of a folder was changed.
        FolderError: a folder is not an exported one, or has a newer format.
        OptionsError: the text is missing, not UTF-8 or too short, a folder is of another model,
            two folders tokenize the text differently, or a task cannot be run.
        MissingPackageError: there are tasks, but lm-eval is not installed.
    """
    require_onnxruntime()
    tasks = None if options.tasks is None else _open_tasks(options.tasks, progress)
    source = open_source(options.checkpoint, agree_on_rope(options.folders), options.adapters)
    config = source.config
    text = read_text(options.text)
    candidates = open_candidates(options, config, progress)
    size = min(options.window, config.context_length)
    windows = split_text(text, candidates, size, options.max_tokens)
    if tasks is not None:
        tasks.check_templates(candidates)
    sample = None
    if options.has_layers:
        sample = StateSample(windows, config.num_layers + 1, config.hidden_size)
    reference = LayerStream(config, source.read_parameter)
    original = _run_original(reference, windows, sample, progress)
    source.require_unchanged()
    report = EvaluationReport(
        name_folders([options.checkpoint])[0],
        tuple(_compare(original, candidate, progress) for candidate in candidates),
        sample.tokens if sample else 0,
        (*source.notes, *list_adapter_notes(source.adapters, candidates)),
    )
    if tasks is None:
        return report
    del original  # its states and its head are large
    report = _add_tasks(report, tasks, reference, candidates, progress)
    source.require_unchanged()
    return report


def _open_tasks(options: TaskOptions, progress: Progress) -> "OpenTasks":
    progress("loading tasks", 0, 1)
    require_lm_eval()
    from glm_export.evaluation.tasks import OpenTasks  # noqa: PLC0415 - lm-eval is an extra

    return OpenTasks(options)


def _add_tasks(
    report: EvaluationReport,
    tasks: "OpenTasks",
    reference: LayerStream,
    candidates: tuple[Candidate, ...],
    progress: Progress,
) -> EvaluationReport:
    """Run the tasks over the original, then over one folder after the other."""
    reached = tasks.run_original(reference, candidates[0], progress)
    folders = tuple(
        replace(folder, tasks=tasks.run_folder(candidate, progress))
        for folder, candidate in zip(report.folders, candidates, strict=True)
    )
    return replace(report, folders=folders, tasks=reached)


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
    """Run and compare one folder; its session is closed at the end."""
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
    except (OutputError, VerificationError) as error:
        raise type(error)(f"in {candidate.folder}, {error}") from error
    return FolderReport(
        *(candidate.folder, candidate.name, comparison, candidate.manifest, layer_errors),
        windows=comparer.sum_windows(),
    )


def _require_finite(comparison: Comparison, layer_errors: tuple[float, ...]) -> None:
    named = {f"layer error {index}": error for index, error in enumerate(layer_errors)}
    for name, value in (asdict(comparison) | named).items():
        if not math.isfinite(value):
            raise VerificationError(
                f"{name} is {value}, so the original or the exported model computes NaN or Inf; "
                "check that the checkpoint's weights are finite."
            )


def _group_by_length(windows: list[TokenArray]) -> list[TokenArray]:
    """Make one batch of all whole windows, and another of a shorter last window."""
    groups: dict[int, list[TokenArray]] = {}
    for window in windows:
        groups.setdefault(len(window), []).append(window)
    return [np.stack(group) for group in groups.values()]
