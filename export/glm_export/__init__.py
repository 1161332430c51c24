"""Export of GLM-4 checkpoints (PyTorch, safetensors) to folders for ONNX Runtime.

The entry point is `export(ExportOptions(...)) -> ExportReport`, and `pipeline.py` is the table of
contents. To read the code, follow a weight: checkpoint -> architectures -> decoder -> trace ->
passes -> plan -> writer -> verify.
"""

from typing import TYPE_CHECKING

from glm_export.checkpoint.adapters import Adapter
from glm_export.early_checks import check_export_inputs, check_export_output
from glm_export.errors import ExportError
from glm_export.packages import require_export_packages
from glm_export.plan.options import ExportOptions
from glm_export.plan.report import ExportReport
from glm_runtime.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from glm_export.estimates import ExportEstimate

__all__ = ["Adapter", "ExportError", "ExportOptions", "ExportReport", "estimate", "export"]
# `python release/version.py NEW` changes this and its copies.
__version__ = "0.1.0"


def export(options: ExportOptions, progress: Progress = ignore_progress) -> ExportReport:
    """Export a checkpoint to a folder.

    Args:
        options: options of the export.
        progress: called with (stage, done, total).

    Raises:
        ExportError: the export failed; the message says what was found, what was expected, and
            what to do.
    """
    require_export_packages()
    check_export_inputs(options)
    check_export_output(options)
    from glm_export.pipeline import run_export  # noqa: PLC0415 - torch is an extra

    return run_export(options, progress)


def estimate(options: ExportOptions, progress: Progress = ignore_progress) -> "ExportEstimate":
    """Plan an export without writing it: exact sizes, and estimates of memory and time.

    Raises:
        ExportError: `export` would refuse the checkpoint or the options.
    """
    require_export_packages()
    check_export_inputs(options)
    from glm_export.estimates import estimate_export  # noqa: PLC0415 - torch is an extra

    return estimate_export(options, progress)
