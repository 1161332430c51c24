"""The plan of an export without running it: `glm-export --plan`.

Sizes are exact. Memory and time are estimates. They combine this machine's speed, measured for a
few seconds, with the amount of work per method, measured once (the constants below).
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glm_export.calibrate import (
    PASSES_OF_SENSITIVITY,
    SENSITIVITY_TOKENS,
    list_job_candidates,
)
from glm_export.calibration.budget import require_possible, set_budget
from glm_export.checkpoint.rope_options import list_rope_warnings
from glm_export.checkpoint.source_name import name_checkpoint
from glm_export.errors import OutputError
from glm_export.evaluation import verify
from glm_export.folder.side_files import list_chat_notes
from glm_export.job import ExportJob
from glm_export.output.unfinished import Unfinished
from glm_export.plan.options import ExportOptions
from glm_export.plan.plan import TensorPlan
from glm_export.preparation import count_needed_bytes, prepare_job
from glm_export.speeds import Speeds, probe_speeds
from glm_quantize import find_method
from glm_runtime.graph.machine import count_usable_cores
from glm_runtime.progress import Progress

# Floating point operations of a method in addition to forward passes and moments, as a multiple of
# N C^2 for each matrix [N, C]. They follow from times that `python -m benchmarks.memory methods`
# measured with 1.5 B parameters. AWQ's search is a multiple of the time of its own rounding.
_WORK: Mapping[str, float] = {"gptq": 10.0, "gptq-refine": 22.0, "awq": 0.0, "awq-gptq": 22.0}
_AWQ_SEARCHES = 1.0
# Imports and tracing, from `python -m benchmarks.memory full-size` with 2, 40 and 61 layers.
_TRACE_SECONDS, _TRACE_SECONDS_A_LAYER = 4.0, 0.45
# Memory of Python, PyTorch and the traced graph, and of the rows being written, from
# `python -m benchmarks.memory full-size`.
_BASE_BYTES, _BYTES_A_LAYER = 430_000_000, 3_000_000
# Numbers of copies in memory at the same time: of a float32 layer, of the hidden states, and of the
# moments of a matrix.
_LAYERS_HELD, _STATES_HELD, _MOMENTS_HELD = 2, 3, 5
_LAYERS_OF_SENSITIVITY = 4
_TO_BE_CHOSEN = "to be chosen"


@dataclass(frozen=True)
class StageEstimate:
    """Estimated duration of one stage of an export, in seconds."""

    name: str
    seconds: float


@dataclass(frozen=True)
class ExportEstimate:
    """The size of an export, and estimates of its memory and time.

    Attributes:
        name: name of the checkpoint's folder.
        model_type: model type from config.json.
        parameters: number of weights.
        method: quantization method; "none" if every tensor stays float.
        schemes: number of tensors and bytes for each scheme; with mixed precision, before the
            schemes are chosen within `size_bytes`.
        tensors: scheme of each parameter; "to be chosen" with mixed precision.
        is_mixed: True if the export would choose schemes by sensitivity.
        size_bytes: size of the data file.
        bits_per_weight: average bits per weight, scales and zero points included.
        disk_bytes: bytes of disk needed while the export runs, not counting work kept from an
            earlier run.
        free_disk_bytes: free bytes of disk now.
        peak_rss_bytes: estimated largest resident memory.
        stages: estimated duration of each stage.
        verification: level of the verification.
        kept_bytes: bytes of finished work kept from an earlier run with the same output.
        notes: sentences that the user should read.
    """

    name: str
    model_type: str
    parameters: int
    method: str
    schemes: Mapping[str, tuple[int, int]]
    tensors: Mapping[str, str]
    is_mixed: bool
    size_bytes: int
    bits_per_weight: float
    disk_bytes: int
    free_disk_bytes: int
    peak_rss_bytes: int
    stages: tuple[StageEstimate, ...]
    verification: str
    kept_bytes: int
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Estimated duration of all stages together, in seconds."""
        return sum(stage.seconds for stage in self.stages)


def estimate_export(options: ExportOptions, progress: Progress) -> ExportEstimate:
    """Plan an export; only a few rows of the weights are read, to measure the speed.

    Raises:
        ExportError: the export would be refused.
    """
    job = prepare_job(options)
    budget = set_budget(job.plan, options.bits_per_weight)
    if job.open_matrices:
        require_possible(job.plan, list_job_candidates(job), budget)
    progress("timing this machine", 0, 1)
    try:
        speeds = probe_speeds(job)
    except OSError as error:
        raise OutputError(
            f"this machine's speed could not be measured ({error}); set TMPDIR to a folder that "
            "can be written."
        ) from error
    is_mixed = bool(job.open_matrices)
    tables = sum(one.size_bytes for one in job.plan.tensors.values() if one.source is None)
    level = verify.choose_level(options, job.plan, job.source.config)
    kept = Unfinished(options.output).count_bytes()
    return ExportEstimate(
        name=name_checkpoint(job.source.checkpoint.folder),
        model_type=job.source.model_type,
        parameters=job.plan.parameters,
        method=job.method if any(one.scheme for one in job.plan.tensors.values()) else "none",
        schemes=_count_schemes(job),
        tensors={
            name: _TO_BE_CHOSEN if is_mixed and name in job.open_matrices else tensor.scheme_name
            for name, tensor in job.plan.tensors.items()
        },
        is_mixed=is_mixed,
        size_bytes=budget.size_bytes + tables if is_mixed else job.plan.size_bytes,
        bits_per_weight=budget.bits_per_weight if is_mixed else job.plan.bits_per_weight,
        disk_bytes=max(0, count_needed_bytes(job) - kept),
        free_disk_bytes=shutil.disk_usage(_find_existing(options.output)).free,
        peak_rss_bytes=_estimate_memory(job),
        stages=tuple(_estimate_stages(job, speeds, level)),
        verification=level,
        kept_bytes=kept,
        notes=(
            *job.source.notes,
            *list_rope_warnings(job.source.model_type, job.source.config),
            *list_chat_notes(job.files),
            *_list_obstacles(options),
        ),
    )


def _list_obstacles(options: ExportOptions) -> list[str]:
    if options.output.exists() and not options.is_forced:
        return [f"{options.output} exists; the export needs another -o, or --force to replace it."]
    return []


def _find_existing(path: Path) -> Path:
    """Return the nearest existing parent folder of an output."""
    return next(parent for parent in path.absolute().parents if parent.is_dir())


def _count_schemes(job: ExportJob) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for tensor in job.plan.tensors.values():
        count, size = found.get(tensor.scheme_name, (0, 0))
        found[tensor.scheme_name] = (count + 1, size + tensor.size_bytes)
    return found


def _estimate_stages(job: ExportJob, speeds: Speeds, level: str) -> list[StageEstimate]:
    layers, calibrates = job.source.config.num_layers, job.corpus is not None
    stages = []
    if calibrates and job.options.is_mixed:
        stages.append(StageEstimate("measuring sensitivity", _sensitivity_seconds(job, speeds)))
    if calibrates and job.has_calibrated_codes:
        stages.append(StageEstimate("calibrating", _calibration_seconds(job, speeds)))
    tracing = _TRACE_SECONDS + _TRACE_SECONDS_A_LAYER * layers
    stages.append(StageEstimate("tracing the decoder", tracing))
    rate = speeds.copied_weights if calibrates else speeds.rounded_weights
    sources = sum(path.stat().st_size for path in job.source.checkpoint.weight_files)
    beside = max(0.0, sources / speeds.hashed_bytes - sum(stage.seconds for stage in stages))
    writing = job.plan.parameters / rate + beside / count_usable_cores()
    stages.append(StageEstimate("writing the weights", writing))
    if level == "full":
        stages.append(StageEstimate("verifying", _verification_seconds(job, speeds)))
    hashed = job.plan.size_bytes / speeds.hashed_bytes
    stages.append(StageEstimate("describing the folder", hashed))
    return stages


def _sensitivity_seconds(job: ExportJob, speeds: Speeds) -> float:
    tokens = min(SENSITIVITY_TOKENS, _count_tokens(job))
    passes = 2.0 * tokens * job.plan.parameters * PASSES_OF_SENSITIVITY
    return passes / speeds.float_operations + job.plan.parameters / speeds.rounded_weights


def _calibration_seconds(job: ExportJob, speeds: Speeds) -> float:
    """Estimate the time of forward passes, second moments, and the method itself."""
    tokens, work = _count_tokens(job), _WORK.get(job.method, 0.0)
    operations = 0.0
    for tensor in _list_quantized(job):
        rows, columns = tensor.shape
        operations += 2.0 * tokens * columns**2 + work * rows * columns**2
        if tensor.name.startswith("layers."):
            operations += 2.0 * tokens * rows * columns
    rounds = 1.0 + (_AWQ_SEARCHES if find_method(job.method).is_folding else 0.0)
    rounding = 0.0 if work else rounds * job.plan.parameters / speeds.rounded_weights
    return operations / speeds.float_operations + rounding


def _verification_seconds(job: ExportJob, speeds: Speeds) -> float:
    """Estimate the time of the PyTorch run on dequantized weights, and of loading the graph."""
    operations = 2.0 * verify.PROBE_TOKENS * job.plan.parameters
    return operations / speeds.float_operations + 2 * job.plan.parameters / speeds.copied_weights


def _estimate_memory(job: ExportJob) -> int:
    config = job.source.config
    base = _BASE_BYTES + _BYTES_A_LAYER * config.num_layers
    if job.corpus is None:
        return base
    layer = 4 * config.hidden_size * (config.query_size + 2 * config.key_value_size)
    layer += 4 * config.hidden_size * (config.query_size + 3 * config.intermediate_size)
    hidden = 4 * config.hidden_size * _count_tokens(job)
    gated = 4 * config.intermediate_size * _count_tokens(job)
    moments = 4 * max(config.hidden_size, config.intermediate_size, config.query_size) ** 2
    held = _LAYERS_HELD * layer + _STATES_HELD * hidden + gated
    if find_method(job.method).is_calibrated:
        held += _MOMENTS_HELD * moments
    if job.options.is_mixed:
        held += _LAYERS_OF_SENSITIVITY * layer
    return base + held


def _list_quantized(job: ExportJob) -> list[TensorPlan]:
    return [tensor for tensor in job.plan.tensors.values() if tensor.scheme and not tensor.matrix]


def _count_tokens(job: ExportJob) -> int:
    return 0 if job.corpus is None else job.corpus.windows.size
