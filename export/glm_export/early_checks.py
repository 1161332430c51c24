"""Checks of paths that take milliseconds, made before PyTorch is imported, which takes seconds.

A wrong path is thus refused at once. Whatever a later step depends on is checked there again.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from glm_export.calibration.documents import find_files
from glm_export.checkpoint.adapters import Adapter, check_adapter_folder
from glm_export.checkpoint.checkpoint import check_folder
from glm_export.checkpoint.json_files import read_json
from glm_export.errors import OptionsError, OutputError
from glm_export.model.architectures import find_architecture
from glm_export.output.staged_folder import check_target
from glm_export.plan.options import ExportOptions
from glm_runtime.errors import describe_os_error
from glm_runtime.folder.manifest import Manifest, read_manifest


def check_export_inputs(options: ExportOptions) -> None:
    """Refuse a missing checkpoint, adapter or calibration text.

    Raises:
        CheckpointError: the folder, its config.json or its weight files are missing or unreadable,
            or an adapter is.
        UnsupportedModelError: the model is not supported, or an adapter is not plain LoRA.
        OptionsError: the calibration text is missing, empty or of another kind.
    """
    _check_checkpoint(options.checkpoint, options.adapters)
    if options.calibration is not None:
        find_files(options.calibration)


def check_export_output(options: ExportOptions) -> None:
    """Refuse an output that could not be put in place after the export.

    Raises:
        OutputError: the output exists and may not be replaced, or its parent is not writable.
    """
    check_target(options.output, is_forced=options.is_forced)
    place = Path(os.path.realpath(options.output))
    parent = next(parent for parent in place.parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(
            f"{options.output} cannot be made, because {parent} is not a folder that you may write "
            "to; choose another -o, or change its permissions."
        )


def check_evaluation_inputs(
    checkpoint: Path,
    folders: Sequence[Path],
    text: Path | None,
    adapters: Sequence[Adapter] = (),
) -> None:
    """Refuse a missing checkpoint, a folder that is not an exported one, and a missing text.

    Raises:
        UnsupportedModelError: the model is not supported, or an adapter is not plain LoRA.
        CheckpointError: the folder, its config.json or its weight files are missing or unreadable.
        FolderError: a folder has no manifest, or one of a newer format.
        OptionsError: a folder or the text cannot be read.
    """
    _check_checkpoint(checkpoint, adapters)
    for folder in folders:
        read_folder_manifest(folder)
    if text is not None:
        try:
            text.open("rb").close()
        except OSError as error:
            raise OptionsError(
                f"the text {text} cannot be read ({describe_os_error(error)}); give a UTF-8 file."
            ) from error


def read_folder_manifest(folder: Path) -> Manifest:
    """Read the manifest of an exported folder.

    Raises:
        FolderError: the folder has no manifest, or one of a newer format.
        OptionsError: the system refuses to read it.
    """
    try:
        return read_manifest(folder)
    except OSError as error:
        raise OptionsError(
            f"{folder} cannot be read ({describe_os_error(error)}); check its permissions."
        ) from error


def _check_checkpoint(folder: Path, adapters: Sequence[Adapter]) -> None:
    check_folder(folder, [adapter.folder for adapter in adapters])
    find_architecture(read_json(folder / "config.json"))  # before tensors of types it does not know
    for adapter in adapters:
        check_adapter_folder(adapter.folder)
