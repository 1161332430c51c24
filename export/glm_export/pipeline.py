"""The steps of an export: load, plan, calibrate, trace, write, verify and describe."""

import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import torch

import glm_export
from glm_export.calibrate import Calibrated, calibrate
from glm_export.calibration.cache_scales import CacheScales, measure_cache_scales
from glm_export.calibration.folding import fold_reader
from glm_export.checkpoint.rope_options import list_rope_warnings
from glm_export.checkpoint.source_hash import SourceHash
from glm_export.errors import OutputError
from glm_export.evaluation import verify
from glm_export.folder import side_files
from glm_export.folder.conformance import add_conformance
from glm_export.folder.describe import Outcome, describe_folder
from glm_export.graph import passes
from glm_export.graph.passes.initializers import list_stored
from glm_export.graph.trace import trace_decoder
from glm_export.job import ExportJob
from glm_export.model.layer_stream import ReadParameter
from glm_export.model.operators import ORT_DOMAIN, PLACEHOLDER_DOMAIN
from glm_export.model.rotary import stored_tables
from glm_export.output import writer
from glm_export.output.staged_folder import place_file, stage_folder
from glm_export.output.unfinished import Unfinished, keep_unfinished
from glm_export.output.writer import WriteOptions, WriteReport
from glm_export.output.written_tensors import WeightError
from glm_export.plan.options import ExportOptions
from glm_export.plan.report import ExportReport
from glm_export.preparation import count_needed_bytes, fingerprint_export, prepare_job
from glm_runtime import GlmRuntimeError
from glm_runtime.folder.manifest import DATA_NAME, MODEL_NAME, Manifest, VerificationEntry
from glm_runtime.graph.machine import read_peak_memory_bytes
from glm_runtime.progress import Progress, track_stage

_TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def run_export(options: ExportOptions, progress: Progress) -> ExportReport:
    """Export a checkpoint to a folder; see `glm_export.export`."""
    started = time.perf_counter()
    job = prepare_job(options)
    source = job.source
    with (
        keep_unfinished(options.output) as unfinished,
        _stage(job, unfinished) as folder,
        SourceHash(side_files.list_source_files(source), source.states) as source_hash,
    ):
        unfinished.open(fingerprint_export(job), is_resumed=options.is_resumed)
        calibrated = None
        if job.corpus is not None:
            calibrated = calibrate(job, unfinished.calibration, progress)
            job = replace(job, plan=calibrated.plan)
        scales = _measure_cache(job, calibrated, progress)
        progress("tracing the decoder", 0, job.plan.parameters)
        initializers = _write_graph(job, folder, scales)
        written = _write_data(job, unfinished.folder, calibrated, progress)
        place_file(unfinished.folder / DATA_NAME, folder)
        progress("verifying", job.plan.parameters, job.plan.parameters)
        verification = _verify(job, folder)
        progress("describing the folder", job.plan.parameters, job.plan.parameters)
        outcome = Outcome(initializers, verification, source_hash.result())
        manifest = describe_folder(job, folder, outcome)
        if options.has_conformance:
            progress("writing conformance vectors", job.plan.parameters, job.plan.parameters)
            manifest = _add_conformance(folder, manifest)
        side_files.require_unchanged_sources(source)
    total = sum(written.errors.values(), WeightError())
    return ExportReport(
        folder=options.output,
        size_bytes=manifest.size_bytes,
        source_bytes=sum(path.stat().st_size for path in source.checkpoint.weight_files),
        bits_per_weight=manifest.bits_per_weight,
        weight_error=total.relative,
        seconds=time.perf_counter() - started,
        peak_rss_bytes=read_peak_memory_bytes(),
        resumed_tensors=written.kept,
        fallbacks=dict(calibrated.state.fallbacks) if calibrated else {},
        verification={
            "level": verification.level,
            "is_passed": verification.is_passed,
            **verification.metrics,
        },
        notes=(
            *job.source.notes,
            *list_rope_warnings(job.source.model_type, job.source.config),
            *side_files.list_chat_notes(job.files),
            *side_files.list_sampling_notes(job.source.checkpoint, job.files),
        ),
    )


def _stage(job: ExportJob, unfinished: Unfinished) -> AbstractContextManager[Path]:
    """Stage the output folder; work kept from an earlier run needs no more disk."""
    needed_bytes = max(0, count_needed_bytes(job) - unfinished.count_bytes())
    return stage_folder(job.options.output, needed_bytes, is_forced=job.options.is_forced)


def _measure_cache(
    job: ExportJob, calibrated: Calibrated | None, progress: Progress
) -> list[CacheScales]:
    """Measure the scales of an int8 KV cache on the folded weights; none for a float cache."""
    if job.cache_corpus is None:
        return []
    read: ReadParameter = job.source.read_parameter
    if calibrated is not None:
        read = fold_reader(read, calibrated.folding)
    return measure_cache_scales(job.source.config, read, job.cache_corpus, progress)


def _write_graph(
    job: ExportJob, folder: Path, scales: list[CacheScales]
) -> dict[int, tuple[str, ...]]:
    """Write the graph's file; return the names of its initializers by offset in the data file."""
    dtype, wide = _TORCH_DTYPES[job.plan.dtype], _TORCH_DTYPES[job.plan.wide_dtype]
    model = trace_decoder(job.source.config, dtype, wide)
    passes.run_passes(model.graph, job.plan, job.options.chosen_accuracy_level)
    if scales:
        passes.quantize_cache(model.graph, scales)
    if job.options.target == "cuda":
        passes.add_greedy(model.graph, job.token_ids.tokenizer_vocab_size)
        passes.avoid_cudnn(model.graph)
    model.graph.opset_imports.pop(PLACEHOLDER_DOMAIN, None)
    model.graph.opset_imports[ORT_DOMAIN] = 1
    model.graph.name = "glm"
    model.producer_name, model.producer_version = "glm-export", glm_export.__version__
    model.metadata_props.clear()
    for node in model.graph:  # they hold paths of our source files
        node.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
    ir.save(model, folder / MODEL_NAME)
    return list_stored(model.graph)


def _write_data(
    job: ExportJob, folder: Path, calibrated: Calibrated | None, progress: Progress
) -> WriteReport:
    advance = track_stage(progress, "writing the weights", job.plan.parameters)
    is_checked = job.options.verify != "none"
    options = WriteOptions(job.method, is_checked, writer.count_threads())
    if calibrated is not None:
        options = replace(options, state=calibrated.state, folding=calibrated.folding)
    path = folder / DATA_NAME
    report = writer.write_weights(job.source.checkpoint, job.plan, path, options, advance)
    writer.write_tables(job.plan, stored_tables(job.source.config), path, is_checked=is_checked)
    return report


def _add_conformance(folder: Path, manifest: Manifest) -> Manifest:
    try:
        return add_conformance(folder, manifest)
    except (GlmRuntimeError, OutputError, ValueError, MemoryError) as error:
        raise OutputError(  # an OutputError keeps the finished work
            f"the folder cannot be run for its conformance vectors ({error or 'no memory'}); "
            "export without --conformance."
        ) from error


def _verify(job: ExportJob, folder: Path) -> VerificationEntry:
    level = verify.choose_level(job.options, job.plan, job.source.config)
    metrics: dict[str, float] = {}
    if level == "full":
        metrics = verify.verify_graph(folder, job.source.config, job.plan, job.options)
    return VerificationEntry(level, level != "none", metrics)
