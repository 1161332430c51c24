"""GLM-4 checkpoints (PyTorch, safetensors) to folders that ONNX Runtime runs.

`export(ExportOptions(...)) -> ExportReport` does it all. To read the code, follow a weight:
checkpoint -> architectures -> decoder -> trace -> passes -> plan -> writer -> verify; `pipeline.py`
is the table of contents.
"""

from typing import TYPE_CHECKING

from glm_export.early_checks import check_export_inputs, check_export_output
from glm_export.errors import ExportError
from glm_export.packages import require_export_packages
from glm_export.plan.options import ExportOptions
from glm_export.plan.report import ExportReport
from glm_runtime.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from glm_export.estimates import ExportEstimate

__all__ = ["ExportError", "ExportOptions", "ExportReport", "estimate", "export"]
# `python release/version.py NEW` changes this and its copies.
__version__ = "0.1.0"


def export(options: ExportOptions, progress: Progress = ignore_progress) -> ExportReport:
    """Make a folder from a checkpoint.

    Args:
        options: what to make.
        progress: called with (stage, weights done, weights in all).

    Raises:
        ExportError: one sentence: what was found, what was expected, what to do.
    """
    require_export_packages()
    check_export_inputs(options)
    check_export_output(options)
    from glm_export.pipeline import run_export  # noqa: PLC0415 - torch is an extra

    return run_export(options, progress)


def estimate(options: ExportOptions, progress: Progress = ignore_progress) -> "ExportEstimate":
    """What `export` would make, and about what memory and time it would take; nothing is written.

    Raises:
        ExportError: `export` would refuse the checkpoint or the options.
    """
    require_export_packages()
    check_export_inputs(options)
    from glm_export.estimates import estimate_export  # noqa: PLC0415 - torch is an extra

    return estimate_export(options, progress)
