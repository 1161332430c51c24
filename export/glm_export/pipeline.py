"""The table of contents: load, plan, trace, write, verify, describe, each one call."""

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch

import glm_export
from glm_export import companions, model_card, passes, verify, writer
from glm_export.architectures import DecoderConfig, check_tensors, find_architecture
from glm_export.checkpoint import Checkpoint, open_checkpoint
from glm_export.companions import TokenIds
from glm_export.decoder import rotation_tables
from glm_export.errors import ExportError
from glm_export.memory import measure_peak_rss_bytes
from glm_export.operators import ORT_DOMAIN, PLACEHOLDER_DOMAIN
from glm_export.options import ExportOptions
from glm_export.output_folder import stage_folder
from glm_export.passes.initializers import DATA_FILE
from glm_export.plan import ROTATION_TABLES, ExportPlan, build_plan
from glm_export.report import ExportReport, Progress
from glm_export.trace import trace_decoder
from glm_export.writer import WeightError, WriteOptions
from glm_runtime import manifest as folder_manifest
from glm_runtime.manifest import FileEntry, Manifest, VerificationEntry

_TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_MAX_THREADS = 4  # each holds about 30 MB of rows; beyond four the disk is the limit


@dataclass(frozen=True)
class _Job:
    """Everything that is known before any work starts."""

    options: ExportOptions
    checkpoint: Checkpoint
    architecture: str
    config: DecoderConfig
    token_ids: TokenIds
    plan: ExportPlan


def run_export(options: ExportOptions, progress: Progress) -> ExportReport:
    """Make a folder from a checkpoint; see `glm_export.export`."""
    started = time.perf_counter()
    job = _prepare(options)
    with (
        stage_folder(options.output, job.plan.size_bytes, is_forced=options.is_forced) as folder,
        ThreadPoolExecutor(1) as background,
    ):
        source_files = background.submit(_describe_files, job.checkpoint.weight_files)
        progress("tracing", 0, job.plan.parameters)
        _write_graph(job, folder)
        errors = _write_data(job, folder, progress)
        progress("verifying", job.plan.parameters, job.plan.parameters)
        verification = _verify(job, folder)
        progress("describing", job.plan.parameters, job.plan.parameters)
        manifest = _describe(job, folder, verification, source_files)
    total = sum(errors.values(), WeightError())
    return ExportReport(
        folder=options.output,
        size_bytes=manifest.size_bytes,
        bits_per_weight=manifest.bits_per_weight,
        weight_error=total.relative,
        seconds=time.perf_counter() - started,
        peak_rss_bytes=measure_peak_rss_bytes(),
        verification={
            "level": verification.level,
            "is_passed": verification.is_passed,
            **verification.metrics,
        },
    )


def _prepare(options: ExportOptions) -> _Job:
    """Everything cheap, so that nothing slow starts in vain."""
    checkpoint = open_checkpoint(options.checkpoint)
    architecture = find_architecture(checkpoint)
    config = architecture.read_config(checkpoint.config)
    parameters = architecture.locate_parameters(config)
    check_tensors(checkpoint, parameters)
    token_ids = companions.read_token_ids(checkpoint, config)
    plan = build_plan(config, parameters, options.scheme, options.chosen_dtype)
    return _Job(options, checkpoint, architecture.model_type, config, token_ids, plan)


def _write_graph(job: _Job, folder: Path) -> None:
    model = trace_decoder(job.config, _TORCH_DTYPES[job.plan.dtype])
    passes.run_passes(model.graph, job.plan, job.options.chosen_accuracy_level)
    model.graph.opset_imports.pop(PLACEHOLDER_DOMAIN, None)
    model.graph.opset_imports[ORT_DOMAIN] = 1
    model.graph.name = "glm"
    model.producer_name, model.producer_version = "glm-export", glm_export.__version__
    model.metadata_props.clear()
    for node in model.graph:  # traces of our source files' places
        node.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
    ir.save(model, folder / "model.onnx")


def _write_data(job: _Job, folder: Path, progress: Progress) -> dict[str, WeightError]:
    done = 0

    def advance(weights: int) -> None:
        nonlocal done
        done += weights
        progress("writing", done, job.plan.parameters)

    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    is_checked = job.options.verify != "none"
    options = WriteOptions(job.options.method, is_checked, threads)
    path = folder / DATA_FILE
    errors = writer.write_weights(job.checkpoint, job.plan, path, options, advance)
    tables = dict(zip(ROTATION_TABLES, rotation_tables(job.config), strict=True))
    writer.write_tables(job.plan, tables, path)
    return errors


def _verify(job: _Job, folder: Path) -> VerificationEntry:
    level = job.options.verify
    if level == "auto":
        level = "full" if verify.can_run_graph(job.plan, job.config) else "tensors"
    metrics: dict[str, float] = {}
    if level == "full":
        accuracy_level = job.options.chosen_accuracy_level
        path = folder / DATA_FILE
        metrics = verify.verify_graph(folder, path, job.config, job.plan, accuracy_level)
    return VerificationEntry(level, level != "none", metrics)


def _describe(
    job: _Job,
    folder: Path,
    verification: VerificationEntry,
    source_files: Future[dict[str, FileEntry]],
) -> Manifest:
    """Write the small files, the card and last the manifest, which lists all others."""
    companions.write_companions(
        folder, job.checkpoint, job.config, job.token_ids, job.options.threads
    )
    try:
        sources = source_files.result()
    except OSError as error:
        raise ExportError(f"a weight file became unreadable: {error}.") from error
    manifest = _build_manifest(job, folder, verification, sources)
    card = model_card.render_card(manifest, job.plan.size_bytes)
    (folder / "README.md").write_bytes(card.encode())
    manifest = _build_manifest(job, folder, verification, sources)
    folder_manifest.write_manifest(folder, manifest)
    return manifest


def _build_manifest(
    job: _Job, folder: Path, verification: VerificationEntry, sources: dict[str, FileEntry]
) -> Manifest:
    files = _describe_files(tuple(sorted(folder.iterdir())))
    options, scheme = job.options, job.options.scheme
    return Manifest(
        tool_version=glm_export.__version__,
        source=folder_manifest.SourceEntry(
            job.checkpoint.folder.resolve().name,
            job.architecture,
            _name_architecture(job),
            sources,
        ),
        recipe=folder_manifest.RecipeEntry(
            quant=options.quant,
            method=options.method if scheme else "none",
            block_size=scheme.block_size if scheme else None,
            is_symmetric=scheme.is_symmetric if scheme else None,
            dtype=job.plan.dtype,
            target=options.target,
            accuracy_level=options.chosen_accuracy_level if scheme else None,
        ),
        model=_describe_model(job),
        tensors=_describe_tensors(job.plan),
        parameters=job.plan.parameters,
        bits_per_weight=job.plan.bits_per_weight,
        size_bytes=sum(entry.size_bytes for entry in files.values()),
        files=files,
        verification=verification,
    )


def _describe_model(job: _Job) -> folder_manifest.ModelEntry:
    config = job.config
    return folder_manifest.ModelEntry(
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        tokenizer_vocab_size=job.token_ids.tokenizer_vocab_size,
        context_length=config.context_length,
        cache_dtype={"fp32": "float32", "fp16": "float16"}[job.plan.dtype],
        eos_token_ids=job.token_ids.eos,
        pad_token_id=job.token_ids.pad,
    )


def _describe_tensors(plan: ExportPlan) -> tuple[folder_manifest.TensorEntry, ...]:
    return tuple(
        folder_manifest.TensorEntry(
            name=tensor.name,
            shape=tensor.shape,
            scheme=tensor.scheme.name if tensor.scheme else plan.dtype,
            size_bytes=tensor.size_bytes,
            sources=tuple(name for name, _ in tensor.source.tensors) if tensor.source else (),
        )
        for tensor in plan.tensors.values()
    )


def _name_architecture(job: _Job) -> str:
    names = job.checkpoint.config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else job.architecture


def _describe_files(paths: tuple[Path, ...]) -> dict[str, FileEntry]:
    return {path.name: folder_manifest.describe_file(path) for path in paths}
