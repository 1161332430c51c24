"""Examines this machine and a folder: packages, integrity of the files, and memory.

The functions return reports, which the command line prints. They do not load the model.
"""

import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from glm_runtime.errors import FolderError, MissingDependencyError
from glm_runtime.folder.manifest import (
    FORMAT_VERSION,
    GRAPH_FILES,
    Manifest,
    ModelEntry,
    check_files,
    read_manifest,
)
from glm_runtime.graph.inference import import_onnxruntime
from glm_runtime.graph.machine import (
    count_usable_cores,
    read_available_memory_bytes,
    read_cpu_features,
    read_cpu_name,
    read_total_memory_bytes,
)
from glm_runtime.graph.version import require_version
from glm_runtime.progress import Progress, ignore_progress
from glm_runtime.text.chat_template import TABLE_NAME, TEMPLATE_NAME

_PACKAGES = ("onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class MachineReport:
    """The machine's packages, processor and memory.

    `onnxruntime_version` is `None` if onnxruntime cannot be imported.
    """

    onnxruntime_version: str | None
    onnxruntime_packages: tuple[str, ...]
    providers: tuple[str, ...]
    cpu: str
    cpu_features: tuple[str, ...]
    physical_cores: int
    memory_total_bytes: int
    memory_available_bytes: int
    python_version: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class FolderReport:
    """The integrity of a folder, and the memory that it needs.

    `cache_bytes` is the size of the KV cache at the full context. `fitting_context_length` is the
    longest context that fits into the available memory beside the weights. `chat` says which hosts
    can render messages.
    """

    format_version: int | None
    file_problems: tuple[str, ...]
    weight_bytes: int
    cache_bytes: int
    context_length: int
    fitting_context_length: int
    problems: tuple[str, ...]
    chat: str = ""


def examine_machine() -> MachineReport:
    """Return the report of this machine."""
    problems = []
    version, providers = None, ()
    try:
        runtime = import_onnxruntime()
        version, providers = runtime.__version__, tuple(runtime.get_available_providers())
    except MissingDependencyError as error:
        problems.append(str(error))
    packages = tuple(name for name in _PACKAGES if _is_installed(name))
    if len(packages) > 1:
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed where one is expected, and "
            "overwrite each other; uninstall both and install one."
        )
    return MachineReport(
        onnxruntime_version=version,
        onnxruntime_packages=packages,
        providers=providers,
        cpu=read_cpu_name(),
        cpu_features=read_cpu_features(),
        physical_cores=count_usable_cores(),
        memory_total_bytes=read_total_memory_bytes(),
        memory_available_bytes=read_available_memory_bytes(),
        python_version=platform.python_version(),
        problems=tuple(problems),
    )


def examine_folder(
    folder: Path, memory_available_bytes: int, progress: Progress = ignore_progress
) -> FolderReport:
    """Check every byte of a folder against its manifest, and its size against the memory.

    Args:
        folder: the exported folder.
        memory_available_bytes: memory that the model may use.
        progress: called with (stage, done, total) while files are read.
    """
    try:
        manifest = read_manifest(folder)
    except FolderError as error:
        return FolderReport(None, (), 0, 0, 0, 0, (str(error),))
    found = check_files(folder, manifest, is_full=True, progress=progress)
    model = manifest.model
    weight_bytes = sum(e.size_bytes for name, e in manifest.files.items() if name in GRAPH_FILES)
    left_bytes = memory_available_bytes - weight_bytes
    fitting = max(0, min(model.context_length, left_bytes // count_cache_bytes(model, 1)))
    advice = "copy the folder again or export again."
    problems = [f"{problem}; {advice}" for problem in found if problem.is_harmful]
    problems += _check_version(manifest)
    if fitting == 0:
        problems.append(
            f"the weights take {weight_bytes / 1e9:.2f} GB but {memory_available_bytes / 1e9:.2f} "
            "GB of memory are available; close other programs or export with fewer bits."
        )
    return FolderReport(
        format_version=FORMAT_VERSION,
        file_problems=tuple(str(problem) for problem in found),
        weight_bytes=weight_bytes,
        cache_bytes=count_cache_bytes(model, model.context_length),
        context_length=model.context_length,
        fitting_context_length=fitting,
        problems=tuple(problems),
        chat=describe_chat(manifest),
    )


def describe_chat(manifest: Manifest) -> str:
    """Say which hosts can render messages with the folder."""
    if TEMPLATE_NAME not in manifest.files:
        return "no chat template: prompts must be written whole"
    if TABLE_NAME not in manifest.files:
        return "template, without a table: the C and C++ runtime takes whole prompts only"
    return "template, and a table for the C and C++ runtime"


def _check_version(manifest: Manifest) -> list[str]:
    """Return a problem if the installed onnxruntime is too old for a folder."""
    try:
        version = import_onnxruntime().__version__
    except MissingDependencyError:
        return []  # a problem of the machine
    try:
        require_version(manifest, version)
    except MissingDependencyError as error:
        return [str(error)]
    return []


def count_cache_bytes(model: ModelEntry, length: int) -> int:
    """Return the size of the KV cache for `length` tokens."""
    values = 2 * model.num_layers * model.num_kv_heads * model.head_dim * length
    return values * np.dtype(model.cache_dtype).itemsize


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
