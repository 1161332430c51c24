import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from glm_runtime.errors import DeviceError, FolderError, MissingDependencyError
from glm_runtime.graph import inference, machine
from glm_runtime.graph.inference import OpenGraph, import_onnxruntime, list_cpu_nodes, open_graph
from glm_runtime.graph.providers import PROVIDERS, Device

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def test_auto_takes_the_cpu_where_no_cuda_is_offered(tiny_folder: Path):
    if HAS_CUDA:
        pytest.skip("this onnxruntime offers CUDA")
    graph = open_graph(tiny_folder / "model.onnx", "auto", threads=2)
    assert graph.device == "cpu"
    assert graph.place == "CPU (2 threads)"
    assert graph.session.get_providers() == ["CPUExecutionProvider"]


def test_the_default_is_one_thread_per_usable_core(tiny_folder: Path):
    graph = open_graph(tiny_folder / "model.onnx", "cpu")
    options = graph.session.get_session_options()
    assert options.intra_op_num_threads == graph.threads == machine.count_usable_cores()


def test_one_thread_is_written_in_the_singular(tiny_folder: Path):
    assert open_graph(tiny_folder / "model.onnx", "cpu", threads=1).place == "CPU (1 thread)"


def test_no_threads_at_all_are_refused(tiny_folder: Path):
    with pytest.raises(DeviceError, match="threads is 0 where 1 to 1024 is expected"):
        open_graph(tiny_folder / "model.onnx", "cpu", threads=0)


@pytest.mark.skipif(HAS_CUDA, reason="this onnxruntime offers CUDA")
def test_cuda_that_is_not_offered_is_refused(tiny_folder: Path):
    sentence = r"offers .*CPUExecutionProvider where CUDAExecutionProvider is expected; install"
    with pytest.raises(DeviceError, match=sentence):
        open_graph(tiny_folder / "model.onnx", "cuda")


@pytest.mark.parametrize("device", sorted(PROVIDERS))
def test_each_provider_can_be_asked_for_and_says_where_it_comes_from(
    tiny_folder: Path, device: Device
):
    provider = PROVIDERS[device]
    if provider.name in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime offers {provider.name}")
    with pytest.raises(DeviceError, match=f"where {provider.name} is expected; install ") as error:
        open_graph(tiny_folder / "model.onnx", device)
    assert provider.packages in str(error.value)


def test_a_plugin_that_cannot_be_loaded_is_named(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A plugin package whose library is no library."""
    library = tmp_path / "libplugin.so"
    library.write_bytes(b"not a library")
    text = f"def get_library_path():\n    return {str(library)!r}\n"
    (tmp_path / "onnxruntime_ep_webgpu.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError, match=r"WebGPU does not start \(.+\); install `pip"):
        open_graph(tiny_folder / "model.onnx", "webgpu")


def test_nodes_left_to_the_cpu_are_named_but_those_of_sizes(tiny_folder: Path):
    """On the CPU every node is left to it."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(
        tiny_folder / "model.onnx", options, ["CPUExecutionProvider"]
    )
    operators = {name.split()[0] for name in list_cpu_nodes(session)}
    assert "GroupQueryAttention" in operators
    assert not operators & {"Shape", "Squeeze", "Cast", "Min", "Range"}
    graph = OpenGraph(session, "webgpu", 1, cpu_nodes=list_cpu_nodes(session))
    assert f"{len(graph.cpu_nodes)} nodes left to the CPU ({graph.cpu_nodes[0]}" in graph.place


def test_a_cuda_graph_on_the_cpu_is_no_error(tiny_folder: Path):
    """It is asked for where CUDA is; `auto` without CUDA takes the CPU."""
    if HAS_CUDA:
        pytest.skip("this onnxruntime offers CUDA")
    assert not open_graph(tiny_folder / "model.onnx", "auto", cuda_graph=True).has_cuda_graph


def test_a_cuda_graph_on_a_device_that_has_none_is_refused(tiny_folder: Path):
    with pytest.raises(DeviceError, match="a CUDA graph was requested on cpu, but only CUDA"):
        open_graph(tiny_folder / "model.onnx", "cpu", cuda_graph=True)


@pytest.fixture(params=["goes on with the CPU", "raises"])
def failing_cuda(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """An onnxruntime-gpu that offers CUDA where it cannot start: without libraries, or a GPU."""

    def start(path: str, options: object, providers: list[str], **rest: object) -> object:
        if providers[0] == "CUDAExecutionProvider" and request.param == "raises":
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
        return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"], **rest)

    runtime = SimpleNamespace(
        __version__="1.31.1",
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=start,
    )
    monkeypatch.setattr(inference, "import_onnxruntime", lambda: runtime)


def test_auto_says_so_when_cuda_is_offered_but_does_not_start(
    tiny_folder: Path, failing_cuda: None
):
    graph = open_graph(tiny_folder / "model.onnx", "auto")
    assert graph.device == "cpu"
    assert re.match(r"CPU \(\d+ threads?\); CUDA does not start \(.+\); check", graph.place)
    assert graph.session.get_providers() == ["CPUExecutionProvider"]


def test_cuda_that_does_not_start_is_an_error_when_asked_for(tiny_folder: Path, failing_cuda: None):
    with pytest.raises(DeviceError, match=r"CUDA does not start \(.+\); check `nvidia-smi`"):
        open_graph(tiny_folder / "model.onnx", "cuda")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.onnx").write_bytes(b"not a graph"),
        lambda folder: (folder / "model.onnx.data").unlink(),
    ],
)
def test_a_graph_that_onnxruntime_refuses_is_named(
    tiny_copy: Path, damage: Callable[[Path], object]
):
    damage(tiny_copy)
    with pytest.raises(FolderError, match=r"onnxruntime [\d.]+ refuses model\.onnx \(.+\); check"):
        open_graph(tiny_copy / "model.onnx", "cpu")


def test_a_graph_that_is_broken_on_every_device_is_the_folders_fault(
    tiny_copy: Path, failing_cuda: None
):
    (tiny_copy / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(FolderError, match="refuses model"):
        open_graph(tiny_copy / "model.onnx", "auto")


def test_a_missing_onnxruntime_names_both_packages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    sentence = r"`pip install onnxruntime`, .*`pip install onnxruntime-gpu`"
    with pytest.raises(MissingDependencyError, match=sentence):
        import_onnxruntime()
