"""Opens the graph with ONNX Runtime: which device, how many threads, which session options.

The only file that imports onnxruntime by name, and only when a model is opened, so that `--help`
is quick and a missing package gives one clear sentence.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from glm_runtime.errors import DeviceError, FolderError, MissingDependencyError
from glm_runtime.machine import count_usable_cores

if TYPE_CHECKING:
    import onnxruntime

DeviceChoice = Literal["auto", "cpu", "cuda"]
Device = Literal["cpu", "cuda"]
DEVICE_CHOICES: tuple[DeviceChoice, ...] = ("auto", "cpu", "cuda")

MODEL_NAME = "model.onnx"

_CUDA_PROVIDER = "CUDAExecutionProvider"
_CPU_PROVIDER = "CPUExecutionProvider"
_ERRORS_ONLY = 3  # asking for several logits warns at every run about the output's shape


@dataclass(frozen=True)
class OpenGraph:
    """A loaded graph and where it runs."""

    session: "onnxruntime.InferenceSession"
    device: Device
    threads: int

    @property
    def place(self) -> str:
        """Where it runs, for people."""
        if self.device == "cuda":
            return "CUDA"
        return f"CPU ({self.threads} thread{'s' if self.threads > 1 else ''})"


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime.

    Raises:
        MissingDependencyError: it is not installed, or cannot be loaded.
    """
    try:
        import onnxruntime  # noqa: PLC0415  # see the module's docstring
    except ImportError as error:
        raise MissingDependencyError(
            f"onnxruntime cannot be imported ({error}); install it with "
            "`pip install 'glm-export[onnxruntime]'`, or for an NVIDIA GPU "
            "`pip install 'glm-export[onnxruntime-gpu]'`."
        ) from error
    onnxruntime.disable_telemetry_events()
    module: ModuleType = onnxruntime
    return module


def open_graph(
    path: Path,
    device: DeviceChoice = "auto",
    threads: int | None = None,
    prepared: Path | None = None,
) -> OpenGraph:
    """Load a graph and its weights.

    Args:
        path: the `.onnx` file; its weights lie beside it.
        device: `auto` takes CUDA where onnxruntime offers it and it starts, else the CPU.
        threads: for the CPU; `None` takes the physical cores this process may use.
        prepared: the same model as `write_packed` wrote it on this machine, to be opened in place
            of `path` on the CPU.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        DeviceError: `cuda` was asked for and is not offered, or does not start; or `threads` is
            less than 1.
        FolderError: onnxruntime refuses the graph.
    """
    if threads is not None and threads < 1:
        raise DeviceError(
            f"threads is {threads} where 1 or more is expected; leave it out to use every core."
        )
    runtime = import_onnxruntime()
    threads = threads or count_usable_cores()
    offered = runtime.get_available_providers()
    if device == "cuda" and _CUDA_PROVIDER not in offered:
        raise DeviceError(
            f"this onnxruntime offers {', '.join(offered)} where {_CUDA_PROVIDER} is expected; "
            "install `pip install 'glm-export[onnxruntime-gpu]'` in place of onnxruntime, "
            "or use --device cpu."
        )
    if device == "cpu" or _CUDA_PROVIDER not in offered:
        if prepared is not None:
            options = _make_options(runtime, threads)
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
            with contextlib.suppress(FolderError):  # a damaged copy: the folder itself is there
                session = _create(runtime, prepared, options, [_CPU_PROVIDER])
                return OpenGraph(session, "cpu", threads)
        return OpenGraph(_start(runtime, path, [_CPU_PROVIDER], threads), "cpu", threads)
    return _open_on_cuda(runtime, path, is_required=device == "cuda", threads=threads)


def _open_on_cuda(runtime: ModuleType, path: Path, *, is_required: bool, threads: int) -> OpenGraph:
    """Open on CUDA, or on the CPU when CUDA does not start and is not required.

    Without a GPU onnxruntime raises; without CUDA's libraries it goes on with the CPU by itself.
    """
    reason = "onnxruntime went on with the CPU"
    try:
        session = _start(runtime, path, [_CUDA_PROVIDER, _CPU_PROVIDER], threads)
        if _CUDA_PROVIDER in session.get_providers():
            return OpenGraph(session, "cuda", threads)
    except FolderError as error:
        if not is_required:  # if the graph is to blame, the CPU refuses it, too
            session = _start(runtime, path, [_CPU_PROVIDER], threads)
        reason = str(error)
    if is_required:
        raise DeviceError(
            f"CUDA does not start ({reason}) where it was asked for; "
            "check `nvidia-smi` and the versions of CUDA and cuDNN, or use --device cpu."
        )
    return OpenGraph(session, "cpu", threads)


def write_packed(path: Path, output: Path) -> None:
    """Write a graph as this machine's CPU kernels want it: optimized, its weights packed.

    Args:
        path: the `.onnx` file; its weights lie beside it.
        output: the `.onnx` file to make; its weights go beside it.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        FolderError: onnxruntime refuses the graph, or cannot write.
    """
    runtime = import_onnxruntime()
    options = _make_options(runtime, count_usable_cores())
    options.optimized_model_filepath = str(output)
    for key, value in (
        ("save_external_prepacked_constant_initializers", "1"),
        ("optimized_model_external_initializers_file_name", f"{output.name}.data"),
        ("optimized_model_external_initializers_min_size_in_bytes", "1024"),
    ):
        options.add_session_config_entry(f"session.{key}", value)
    _create(runtime, path, options, [_CPU_PROVIDER])


def _start(
    runtime: ModuleType, path: Path, providers: list[str], threads: int
) -> "onnxruntime.InferenceSession":
    return _create(runtime, path, _make_options(runtime, threads), providers)


def _make_options(runtime: ModuleType, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads
    return options


def _create(
    runtime: ModuleType, path: Path, options: Any, providers: list[str]
) -> "onnxruntime.InferenceSession":
    try:
        # onnxruntime's own fallback would print on stdout.
        return runtime.InferenceSession(str(path), options, providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's own classes share no root but this
        reason = str(error).strip().splitlines()[0]
        raise FolderError(
            f"onnxruntime {runtime.__version__} refuses {path.name} ({reason}); "
            "check the folder with `glm-run doctor` and upgrade onnxruntime."
        ) from error
