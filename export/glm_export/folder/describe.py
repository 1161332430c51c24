"""The manifest and the model card of a finished folder."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import glm_export
from glm_export.checkpoint.source_name import name_checkpoint
from glm_export.folder import model_card, side_files
from glm_export.job import ExportJob
from glm_export.model.rotary import describe_rope
from glm_export.plan.plan import EMBEDDING, TensorPlan
from glm_quantize import Scheme
from glm_runtime.errors import PromptError
from glm_runtime.folder import manifest as folder_manifest
from glm_runtime.folder.manifest import (
    AdapterEntry,
    FileEntry,
    Manifest,
    TensorSource,
    VerificationEntry,
)
from glm_runtime.text.chat_template import TEMPLATE_NAME, ChatTemplate
from glm_runtime.text.thinking import is_open_thinking

_CARD = "README.md"
_OLDEST_ONNXRUNTIME, _WITH_NEW_KERNELS = "1.24", "1.27"
_LONG_PROMPT = 8192  # the card of GLM-Z1-9B-0414: consider YaRN for longer inputs
_NUMPY_NAMES = {"fp32": "float32", "fp16": "float16"}
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """Facts that are known once graph and data file are written.

    Attributes:
        initializers: names of the graph's initializers by offset in the data file.
        verification: level and figures of the verification.
        sources: sizes and hashes of the checkpoint's files.
    """

    initializers: Mapping[int, tuple[str, ...]]
    verification: VerificationEntry
    sources: dict[str, FileEntry]


def describe_folder(job: ExportJob, folder: Path, outcome: Outcome) -> Manifest:
    """Write the small files, the model card, and then the manifest, which lists all others."""
    side_files.write_side_files(folder, job.source.checkpoint, job.files)
    written = {path.name: folder_manifest.describe_file(path) for path in folder.iterdir()}
    manifest = _build_manifest(job, written, outcome)
    card = folder / _CARD
    base_model = model_card.name_base_model(job.source.checkpoint.folder.resolve())
    text = model_card.render_card(manifest, job.plan.size_bytes, base_model)
    card.write_bytes(text.encode("utf-8", "replace"))
    files = {**manifest.files, _CARD: folder_manifest.describe_file(card)}
    size_bytes = sum(entry.size_bytes for entry in files.values())
    manifest = replace(manifest, files=files, size_bytes=size_bytes)
    folder_manifest.write_manifest(folder, manifest)
    return manifest


def _build_manifest(job: ExportJob, files: dict[str, FileEntry], outcome: Outcome) -> Manifest:
    options = job.options
    schemes = {tensor.scheme for tensor in job.plan.tensors.values() if tensor.scheme}
    return Manifest(
        tool_version=glm_export.__version__,
        source=folder_manifest.SourceEntry(
            name_checkpoint(job.source.checkpoint.folder),
            job.source.model_type,
            _name_architecture(job),
            outcome.sources,
            job.source_license.name,
            tuple(job.source_license.files),
            tuple(AdapterEntry(one.name, one.weight) for one in job.source.adapters),
        ),
        recipe=folder_manifest.RecipeEntry(
            quant=_name_quant(schemes),
            method=_name_method(job, schemes),
            block_size=_if_same(scheme.block_size for scheme in schemes),
            is_symmetric=_if_same(scheme.is_symmetric for scheme in schemes),
            dtype=job.plan.dtype,
            target=options.target,
            accuracy_level=options.chosen_accuracy_level if schemes else None,
            calibration=_describe_calibration(job),
        ),
        model=_describe_model(job),
        tensors=_describe_tensors(job, outcome.initializers),
        parameters=job.plan.parameters,
        bits_per_weight=job.plan.bits_per_weight,
        size_bytes=sum(entry.size_bytes for entry in files.values()),
        files=files,
        verification=outcome.verification,
        oldest_onnxruntime=_find_oldest_onnxruntime(job),
    )


def _find_oldest_onnxruntime(job: ExportJob) -> str:
    """Return the oldest version that runs the graph; `tests/hosts/test_oldest_onnxruntime.py`.

    Versions 1.24 and 1.26 refuse an embedding of 2-bit codes and an int8 KV cache.
    """
    embedding = job.plan.tensors[EMBEDDING].scheme
    has_int2_embedding = embedding is not None and embedding.bits == 2
    is_new = has_int2_embedding or job.options.kv_cache == "int8"
    return _WITH_NEW_KERNELS if is_new else _OLDEST_ONNXRUNTIME


def _name_quant(schemes: set[Scheme]) -> str:
    """Name the types of the codes: "int4", "int4 and int8", or "none"."""
    bits = sorted({scheme.bits for scheme in schemes})
    return " and ".join(f"int{count}" for count in bits) or "none"


def _name_method(job: ExportJob, schemes: set[Scheme]) -> str:
    if job.source.stored_format:
        return f"imported {job.source.stored_format}"
    return job.method if schemes else "none"


def _if_same(values: Iterable[T]) -> T | None:
    """Return the common value; None if the values differ or there are none."""
    different = set(values)
    return different.pop() if len(different) == 1 else None


def _describe_calibration(job: ExportJob) -> folder_manifest.CalibrationEntry | None:
    corpus = job.corpus or job.cache_corpus
    if corpus is None:
        return None
    return folder_manifest.CalibrationEntry(corpus.name, corpus.sha256, corpus.windows.size)


def _describe_model(job: ExportJob) -> folder_manifest.ModelEntry:
    config = job.source.config
    return folder_manifest.ModelEntry(
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        tokenizer_vocab_size=job.token_ids.tokenizer_vocab_size,
        context_length=config.context_length,
        cache_dtype="int8" if job.options.kv_cache == "int8" else _NUMPY_NAMES[job.plan.dtype],
        eos_token_ids=job.token_ids.eos,
        pad_token_id=job.token_ids.pad,
        rope=describe_rope(config, _find_long_prompt(job)),
    )


def _find_long_prompt(job: ExportJob) -> int | None:
    """Return the prompt length above which GLM-Z1's card recommends YaRN; None for other models.

    GLM-Z1 is the `glm4` model whose chat template opens the reasoning of an answer.
    """
    template = job.files.get(TEMPLATE_NAME)
    if job.source.model_type != "glm4" or job.source.config.yarn or template is None:
        return None
    try:
        prompt = ChatTemplate(template.decode()).render([{"role": "user", "content": "Hello"}])
    except PromptError:
        return None
    return _LONG_PROMPT if is_open_thinking(prompt) else None


def _describe_tensors(
    job: ExportJob, initializers: Mapping[int, tuple[str, ...]]
) -> tuple[folder_manifest.TensorEntry, ...]:
    return tuple(
        folder_manifest.TensorEntry(
            name=tensor.name,
            shape=tensor.shape,
            scheme=tensor.scheme_name,
            size_bytes=tensor.size_bytes,
            initializers=tuple(
                name
                for segment in tensor.all_segments
                for name in initializers.get(segment.offset_bytes, ())
            ),
            sources=tuple(_list_sources(job, tensor)),
        )
        for tensor in job.plan.tensors.values()
    )


def _list_sources(job: ExportJob, tensor: TensorPlan) -> Iterator[TensorSource]:
    """Yield the source tensors in order; for a pre-quantized matrix, all its parts."""
    checkpoint = job.source.checkpoint
    first_row = 0
    for name, shape in tensor.source.tensors if tensor.source else ():
        names = [name]
        if tensor.matrix is not None:
            prefix = name.removesuffix("weight")
            names = sorted(part for part in tensor.matrix.tensors if part.startswith(prefix))
        for one in names:
            for file, origin in checkpoint.list_origins(one):
                yield TensorSource(file, origin, first_row)
        first_row += shape[0]


def _name_architecture(job: ExportJob) -> str:
    names = job.source.checkpoint.config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else job.source.model_type
