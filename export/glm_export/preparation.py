"""Everything cheap, done before anything slow: an export's job, or the sentence that refuses it.

Read `job.py` for what comes out, `pipeline.py` for what is then done.
"""

import hashlib
import json

import glm_export
from glm_export.calibration.corpus import Corpus, read_corpus
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
from glm_export.plan.schemes import apply_overrides, list_matrices
from glm_export.tokenizer.token_ids import read_token_ids
from glm_quantize import find_method

_WINDOW = 512  # tokens of a calibration window


def prepare_job(options: ExportOptions) -> ExportJob:
    """Read config, headers, tokenizer, template, license and texts; plan every byte.

    Raises:
        ExportError: what was found, what was expected, what to do.
    """
    if options.verify in ("auto", "full"):
        require_onnxruntime()
    source = open_source(options.checkpoint, options.rope.list_changes(options.checkpoint))
    if source.stored_format:
        _check_import(options, source.stored_format)
    config, matrices = source.config, source.matrices
    token_ids = read_token_ids(source.checkpoint, config)
    files = side_files.render_side_files(source.checkpoint, config, token_ids, options)
    source_license = read_license(source.checkpoint.folder)
    names = [name for name in list_matrices(source.parameters) if name not in matrices]
    scheme = None if matrices else options.scheme  # the floats of a quantized checkpoint stay
    schemes, fixed = apply_overrides(names, scheme, options.parsed_overrides)
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
    """A checkpoint that is quantized already has its own codes."""
    is_asked = any(v is not None for v in (options.quant, options.method, options.bits_per_weight))
    if is_asked or (options.calibration is not None and options.kv_cache == "float"):
        raise OptionsError(
            f"the checkpoint is quantized already ({method}) and is exported as it is; leave out "
            "quant, method, bits per weight and calibration. What it holds in float can be "
            "quantized by --set, for example 'lm_head=int8'."
        )


def _is_calibrated(options: ExportOptions) -> bool:
    """Whether the recipe shows the model a text to choose its codes."""
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
    """Disk that the folder needs, and calibration beside it."""
    if job.corpus is None:
        return job.plan.size_bytes
    bits = job.options.bits_per_weight or job.plan.bits_per_weight
    hidden = 4 * job.corpus.windows.size * job.source.config.hidden_size
    codes = int(bits * job.plan.parameters / 8)
    return job.plan.size_bytes + codes + 2 * hidden


def fingerprint_export(job: ExportJob) -> str:
    """A hash of all that the codes depend on; of weight files, of their sizes and times."""
    options = job.options
    files = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
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
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
