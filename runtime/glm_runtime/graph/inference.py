"""Opens the graph with ONNX Runtime on a device, with threads and session options.

Only this file imports onnxruntime, and only when a model is opened, so that `--help` is fast and a
missing package gives one clear sentence.
"""

import contextlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from glm_runtime.errors import (
    DeviceError,
    FolderError,
    GenerationError,
    MissingDependencyError,
    first_line,
)
from glm_runtime.graph import cuda
from glm_runtime.graph.machine import MAX_THREADS, count_usable_cores
from glm_runtime.graph.providers import CPU_PROVIDER, PROVIDERS, Device, find_devices, register

if TYPE_CHECKING:
    import onnxruntime

DeviceChoice = Device | Literal["auto"]
DEVICE_CHOICES: tuple[DeviceChoice, ...] = ("auto", "cpu", *PROVIDERS)

GREEDY_TOKEN = "greedy_token"  # an output of folders for CUDA

LOGIT_TYPES: Mapping[str, str] = MappingProxyType(
    {"tensor(float)": "float32", "tensor(float16)": "float16"}
)

_ERRORS_ONLY = 3  # several rows of logits cause a warning about the output's shape at every run
_RECORD_PLACES = "session.record_ep_graph_assignment_info"
_ATTENTION = "GroupQueryAttention"
# Nodes that compute shapes stay on the CPU, and CUDA graphs do not contain them.
_SIZE_OPERATORS = ("Cast", "Constant", "Min", "Range", "Shape", "Squeeze", "Sub")


@dataclass(frozen=True)
class OpenGraph:
    """A loaded graph and the device that runs it.

    Attributes:
        session: the ONNX Runtime session.
        device: the device of the execution provider.
        threads: number of CPU threads.
        has_fixed_steps: whether a step of one token runs on buffers that stay on the device.
        has_cuda_graph: whether such steps are captured and replayed.
        cpu_nodes: names of the nodes that another device leaves to the CPU, without those that
            compute shapes.
        replaced: what keeps the memory of replaced initializers alive.
        note: why `auto` took the CPU although onnxruntime offers CUDA; "" otherwise.
    """

    session: "onnxruntime.InferenceSession"
    device: Device
    threads: int
    has_fixed_steps: bool = False
    has_cuda_graph: bool = False
    cpu_nodes: tuple[str, ...] = ()
    replaced: object = field(default=None, compare=False, repr=False)
    note: str = ""
    _lock: threading.RLock = field(default_factory=threading.RLock, compare=False, repr=False)

    def run(
        self, binding: "onnxruntime.IOBinding", options: "onnxruntime.RunOptions | None" = None
    ) -> None:
        """Run the graph; with CUDA graphs ONNX Runtime allows one run of a session at a time."""
        with self._lock if self.has_cuda_graph else contextlib.nullcontext():
            self.session.run_with_iobinding(binding, options)

    def close(self) -> None:
        """Free the session and its weights; a later run is refused."""
        object.__setattr__(self, "session", _ClosedSession())

    def release(self, graph_id: int) -> None:
        """Release the CUDA graph that was captured under an id."""
        with self._lock, contextlib.suppress(GenerationError):  # a closed graph holds none
            self.session.release_captured_graph(graph_id)

    @property
    def place(self) -> str:
        """The device in words, such as "CPU (4 threads)"."""
        if self.device == "cpu":
            place = f"CPU ({self.threads} thread{'s' if self.threads > 1 else ''})"
            return f"{place}; {self.note}" if self.note else place
        words = [PROVIDERS[self.device].title, "untested by glm-export's authors"]
        if self.has_cuda_graph:
            words.append("with a CUDA graph")
        if self.cpu_nodes:
            rest = ", ..." if len(self.cpu_nodes) > 1 else ""
            count = f"{len(self.cpu_nodes)} node{'s' if rest else ''}"
            words.append(f"{count} left to the CPU ({self.cpu_nodes[0]}{rest})")
        return ", ".join(words)

    @property
    def memory(self) -> str:
        """The memory of the KV cache, as ONNX Runtime names it."""
        is_on_gpu = self.device == "cuda" and not self.has_cpu_attention
        return "cuda" if is_on_gpu else "cpu"

    @property
    def has_cpu_attention(self) -> bool:
        """Whether the device leaves attention to the CPU, as CUDA does in float32."""
        return any(name.startswith(_ATTENTION) for name in self.cpu_nodes)

    @cached_property
    def logits_dtype(self) -> str:
        """The numpy type of the logits."""
        kinds = {output.name: output.type for output in self.session.get_outputs()}
        return LOGIT_TYPES.get(kinds.get("logits", ""), "float32")

    @cached_property
    def chooses_greedily(self) -> bool:
        """Whether the graph has an output for the most likely token."""
        return any(output.name == GREEDY_TOKEN for output in self.session.get_outputs())


class _ClosedSession:
    """Stands where the session of a closed graph was."""

    def __getattr__(self, name: str) -> object:
        raise GenerationError("the model was closed; load the folder again.")


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime.

    Raises:
        MissingDependencyError: onnxruntime is not installed, or cannot be loaded.
    """
    # The library reads this when it is loaded; otherwise 1.31 writes a device id and a database of
    # events into ~/.cache before they can be turned off.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime  # noqa: PLC0415  # see the module's docstring
    except ImportError as error:
        raise MissingDependencyError(
            f"onnxruntime cannot be imported ({error}); install it with "
            "`pip install onnxruntime`, or for an NVIDIA GPU `pip install onnxruntime-gpu`."
        ) from error
    onnxruntime.disable_telemetry_events()
    module: ModuleType = onnxruntime
    return module


def open_graph(
    path: Path,
    device: DeviceChoice = "auto",
    threads: int | None = None,
    prepared: Path | None = None,
    *,
    cuda_graph: bool | None = None,
    replaced: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> OpenGraph:
    """Load a graph and its weights.

    Args:
        path: the `.onnx` file, with its weights beside it.
        device: the device; `auto` takes CUDA where onnxruntime offers it and it starts, else the
            CPU.
        threads: number of CPU threads; `None` takes the physical cores that this process may use.
        prepared: a copy of the model that `write_packed` wrote on this machine; on the CPU it is
            opened instead of `path`.
        cuda_graph: whether to capture the step of one token; `None` captures it where the graph
            allows it. It has no effect where `auto` takes the CPU because onnxruntime offers no
            CUDA.
        replaced: initializers of the graph to replace, by name; only on the CPU, because ONNX
            Runtime ignores them on other devices.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        DeviceError: the device is not offered or does not start, `threads` is out of range, a CUDA
            graph is not possible, or `replaced` is given on another device than the CPU.
        FolderError: onnxruntime refuses the graph.
    """
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise DeviceError(
            f"threads is {threads} where 1 to {MAX_THREADS} is expected; leave it out to use every "
            "core."
        )
    if device not in DEVICE_CHOICES:
        raise DeviceError(
            f"the device is {device!r} where one of {', '.join(DEVICE_CHOICES)} is expected; "
            "choose one of them, or leave it out."
        )
    runtime = import_onnxruntime()
    opener = _Opener(runtime, path, threads or count_usable_cores(), prepared, replaced or {})
    if replaced and device != "cpu":
        _require_cpu(runtime, device)
        return opener.open_on_cpu()
    if device == "auto":
        return opener.open_on_best(cuda_graph)
    if cuda_graph and device != "cuda":
        raise DeviceError(
            f"a CUDA graph was requested on {device}, but only CUDA supports it; "
            "leave it out, or use the device cuda."
        )
    if device == "cpu":
        return opener.open_on_cpu()
    register(runtime, device)
    return opener.open_on_cuda(cuda_graph) if device == "cuda" else opener.open_on(device)


def _require_cpu(runtime: ModuleType, device: DeviceChoice) -> None:
    """Refuse rope scaling where the model would not run on the CPU."""
    is_cpu = device == "auto" and PROVIDERS["cuda"].name not in runtime.get_available_providers()
    if not is_cpu:
        raise DeviceError(
            f"rope scaling at load works on the CPU only, where the device is {device}; use "
            "the device cpu, or export with --rope-scaling."
        )


@dataclass(frozen=True)
class _Opener:
    """Opens one graph on the device that its methods name."""

    runtime: ModuleType
    path: Path
    threads: int
    prepared: Path | None
    replaced: Mapping[str, npt.NDArray[np.generic]]

    def open_on_best(self, cuda_graph: bool | None) -> OpenGraph:
        """Open on CUDA where onnxruntime offers it and it starts, else on the CPU."""
        if PROVIDERS["cuda"].name not in self.runtime.get_available_providers():
            return self.open_on_cpu()
        try:
            graph = self.open_on_cuda(cuda_graph)
        except DeviceError as error:
            if cuda_graph:
                raise
            graph = self.open_on_cpu()  # raises if the graph itself is the cause
            return replace(graph, note=str(error).removesuffix(", or use the device cpu."))
        return self.open_on_cpu() if graph.has_cpu_attention else graph

    def open_on_cpu(self) -> OpenGraph:
        # They use the arrays' memory, and ONNX Runtime refers to them as long as the session lives.
        values = {
            name: self.runtime.OrtValue.ortvalue_from_numpy(array)
            for name, array in self.replaced.items()
        }
        if self.prepared is not None:
            options = self._make_cpu_options(values)
            options.graph_optimization_level = self.runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
            with contextlib.suppress(FolderError):  # a damaged copy: open the folder's graph
                session = _create(self.runtime, self.prepared, options, [CPU_PROVIDER])
                return OpenGraph(session, "cpu", self.threads, replaced=(self.replaced, values))
        options = self._make_cpu_options(values)
        session = _create(self.runtime, self.path, options, [CPU_PROVIDER])
        return OpenGraph(session, "cpu", self.threads, replaced=(self.replaced, values))

    def _make_cpu_options(self, values: Mapping[str, "onnxruntime.OrtValue"]) -> Any:
        options = _make_options(self.runtime, self.threads)
        for name, value in values.items():
            options.add_initializer(name, value)
        return options

    def open_on_cuda(self, cuda_graph: bool | None) -> OpenGraph:
        """Open on CUDA, with a CUDA graph if it is requested and possible.

        Raises:
            DeviceError: CUDA does not start, or a requested CUDA graph is not possible.
        """
        if cuda_graph is False:
            return self.open_on("cuda")
        # Captured graphs hold memory, which versions before 1.31 cannot release.
        can_release = hasattr(self.runtime.InferenceSession, "release_captured_graph")
        reason = f"onnxruntime {self.runtime.__version__} is older than 1.31"
        if can_release:
            try:
                return self.open_on("cuda", {"enable_cuda_graph": "1"}, has_cuda_graph=True)
            except DeviceError as error:
                reason = first_line(error.__cause__ or error)
        graph = self.open_on("cuda")
        if cuda_graph:
            named = ", ".join(graph.cpu_nodes) or "none known"
            raise DeviceError(
                f"CUDA runs this graph, but not as a CUDA graph ({reason}; nodes on the CPU: "
                f"{named}); do not ask for it, or export again with --target cuda."
            )
        return graph

    def open_on(
        self,
        device: Device,
        provider_options: dict[str, str] | None = None,
        *,
        has_cuda_graph: bool = False,
    ) -> OpenGraph:
        """Open on a device other than the CPU.

        Raises:
            DeviceError: the device does not start; onnxruntime then raises or uses the CPU.
        """
        provider, chosen = PROVIDERS[device], dict(provider_options or {})
        if device == "cuda":
            cuda.preload_libraries(self.runtime)
            chosen = {**cuda.OPTIONS, **chosen}
        options = _make_options(self.runtime, self.threads)
        options.add_session_config_entry(_RECORD_PLACES, "1")
        providers: list[Any] = [(provider.name, chosen), CPU_PROVIDER]
        devices = find_devices(self.runtime, provider)
        if devices:
            options.add_provider_for_devices(devices[:1], chosen)
            providers = []
        try:
            session = _create(self.runtime, self.path, options, providers)
        except FolderError as error:
            cause = error.__cause__ or error
            raise DeviceError(self._say(device, first_line(cause))) from cause
        if provider.name not in session.get_providers():
            raise DeviceError(self._say(device, "onnxruntime uses the CPU instead"))
        nodes = list_cpu_nodes(session)
        graph = OpenGraph(
            session, device, self.threads, has_cuda_graph=has_cuda_graph, cpu_nodes=nodes
        )
        return replace(graph, has_fixed_steps=graph.memory != "cpu")

    def _say(self, device: Device, reason: str) -> str:
        advice = f"({reason}); check its drivers"
        if device == "cuda":
            advice = cuda.explain_failure(self.runtime, reason)
        return f"{PROVIDERS[device].title} does not start {advice}, or use the device cpu."


def list_cpu_nodes(session: "onnxruntime.InferenceSession") -> tuple[str, ...]:
    """Return the nodes on the CPU that do not compute shapes; none before onnxruntime 1.24."""
    tell = getattr(session, "get_provider_graph_assignment_info", None)
    if tell is None:
        return ()
    parts = [part for part in tell() if part.ep_name == CPU_PROVIDER]
    nodes = [node for part in parts for node in part.get_nodes()]
    return tuple(
        f"{node.op_type} {node.name}" for node in nodes if node.op_type not in _SIZE_OPERATORS
    )


def write_packed(path: Path, output: Path) -> None:
    """Write an optimized graph whose weights are packed for this machine's CPU kernels.

    Args:
        path: the `.onnx` file, with its weights beside it.
        output: the `.onnx` file to write; its weights go beside it.

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
    _create(runtime, path, options, [CPU_PROVIDER])


def _make_options(runtime: ModuleType, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads
    # Memory plans are kept per input shape, but every step has another shape: saves 45 MB.
    options.enable_mem_pattern = False
    return options


def _create(
    runtime: ModuleType, path: Path, options: Any, providers: list[Any]
) -> "onnxruntime.InferenceSession":
    try:
        # onnxruntime's own fallback prints to stdout.
        return runtime.InferenceSession(str(path), options, providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's classes have no other common root
        if "pthread_create" in str(error):
            raise DeviceError(
                f"the system does not start {options.intra_op_num_threads} threads; raise the "
                "limit of processes (`ulimit -u`) or of memory, or take fewer threads."
            ) from error
        raise FolderError(
            f"onnxruntime {runtime.__version__} refuses {path.name} ({first_line(error)}); "
            "check the folder with `glm-run doctor` and upgrade onnxruntime."
        ) from error
