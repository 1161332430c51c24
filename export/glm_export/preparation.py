"""The cheap part of an export, which comes first: it makes the job or refuses it.

`job.py` describes the result, and `pipeline.py` runs it.
"""

import hashlib
import json
from dataclasses import replace

import glm_export
from glm_export.calibration.corpus import Corpus, read_corpus
from glm_export.checkpoint.adapters import OpenAdapter
from glm_export.checkpoint.license import read_license
from glm_export.checkpoint.source_model import open_source
from glm_export.device import check_device
from glm_export.errors import OptionsError
from glm_export.folder import side_files
from glm_export.job import ExportJob
from glm_export.model.architectures import DecoderConfig
from glm_export.packages import require_onnxruntime
from glm_export.plan.options import ExportOptions
from glm_export.plan.plan import build_plan
from glm_export.plan.schemes import apply_overrides, fit_block_sizes, list_matrices
from glm_export.tokenizer.token_ids import read_token_ids
from glm_quantize import find_method

_WINDOW = 512  # number of tokens in a calibration window


def prepare_job(options: ExportOptions) -> ExportJob:
    """Read config, headers, tokenizer, chat template, license and calibration text, and plan.

    Raises:
        ExportError: the checkpoint or an option is refused.
    """
    if options.verify in ("auto", "full") or options.has_conformance:
        require_onnxruntime()
    source = open_source(
        options.checkpoint, options.rope.list_changes(options.checkpoint), options.adapters
    )
    if source.stored_format:
        _check_import(options, source.stored_format)
    config, matrices = source.config, source.matrices
    token_ids = read_token_ids(source.checkpoint, config)
    files = side_files.render_side_files(source.checkpoint, config, token_ids, options)
    source_license = read_license(source.checkpoint.folder)
    shapes = list_matrices(source.parameters)
    names = [name for name in shapes if name not in matrices]
    scheme = (
        None if matrices else options.scheme
    )  # float tensors of a quantized checkpoint stay float
    schemes, fixed = apply_overrides(names, scheme, options.parsed_overrides)
    schemes, notes = fit_block_sizes(schemes, shapes)
    source = replace(source, notes=(*source.notes, *notes))
    plan = build_plan(config, source.parameters, schemes, options.chosen_dtype, matrices)
    is_mixed = options.is_mixed and not matrices
    corpus = _read_corpus(options, config) if _is_calibrated(options) and not matrices else None
    cache_corpus = None
    if options.kv_cache == "int8":
        cache_corpus = corpus or _read_corpus(options, config)
    return ExportJob(
        options=options,
        source=source,
        token_ids=token_ids,
        files={**source_license.files, **files},
        source_license=source_license,
        method="rtn-search" if matrices else options.chosen_method,
        plan=plan,
        open_matrices=tuple(name for name in names if name not in fixed) if is_mixed else (),
        corpus=corpus,
        cache_corpus=cache_corpus,
    )


def _check_import(options: ExportOptions, method: str) -> None:
    """Refuse quantization options for a checkpoint that is already quantized."""
    is_asked = any(v is not None for v in (options.quant, options.method, options.bits_per_weight))
    if is_asked or (options.calibration is not None and options.kv_cache == "float"):
        raise OptionsError(
            f"the checkpoint is quantized already ({method}) and its codes are exported unchanged; "
            "leave out quant, method, bits per weight and calibration. Its float matrices can be "
            "quantized by --set, for example 'lm_head=int8'."
        )


def _is_calibrated(options: ExportOptions) -> bool:
    """Return True if the export runs the model on a calibration text."""
    if options.chosen_quant == "none":
        return False
    is_calibrated = find_method(options.chosen_method).is_calibrated
    return is_calibrated or options.is_mixed or options.uses_calibration_text


def _read_corpus(options: ExportOptions, config: DecoderConfig) -> Corpus:
    check_device(options.device)
    window = min(_WINDOW, config.context_length, options.calibration_tokens)
    return read_corpus(
        options.calibration,
        options.checkpoint,
        window,
        options.calibration_tokens,
        config.vocab_size,
    )


def count_needed_bytes(job: ExportJob) -> int:
    """Return the bytes of disk that the folder and its calibration need."""
    if job.corpus is None:
        return job.plan.size_bytes
    bits = job.options.bits_per_weight or job.plan.bits_per_weight
    hidden = 4 * job.corpus.windows.size * job.source.config.hidden_size
    codes = int(bits * job.plan.parameters / 8)
    return job.plan.size_bytes + codes + 2 * hidden


def fingerprint_export(job: ExportJob) -> str:
    """Hash everything that the codes depend on; for weight files, their states."""
    options = job.options
    states = job.source.checkpoint.states.by_path
    files = [
        (path.name, states[path].size_bytes, states[path].modified_ns, states[path].inode)
        for path in job.source.checkpoint.weight_files
    ]
    content = [
        glm_export.__version__,
        dict(job.source.checkpoint.config),
        files,
        [options.chosen_quant, job.method, options.block_size, options.is_symmetric],
        [options.is_mixed, options.uses_calibration_text],
        [options.overrides, options.bits_per_weight, job.plan.dtype, options.device],
        None if job.corpus is None else job.corpus.sha256,
        [_identify_adapter(adapter) for adapter in job.source.adapters],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _identify_adapter(adapter: OpenAdapter) -> list[object]:
    states = adapter.stored.states.by_path
    files = [
        (name, states[path].size_bytes, states[path].modified_ns, states[path].inode)
        for name, path in adapter.files.items()
    ]
    return [adapter.weight, dict(adapter.stored.config), files]
