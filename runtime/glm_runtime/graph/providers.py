"""Execution providers of ONNX Runtime that can be asked for by name, and where each comes from.

A provider is either built into an onnxruntime package or comes as a plugin: a Python package of
its own beside a plain onnxruntime.
"""

import importlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, Literal

from glm_runtime.errors import DeviceError, first_line

Device = Literal["cpu", "cuda", "openvino", "webgpu", "directml", "coreml", "qnn"]

CPU_PROVIDER = "CPUExecutionProvider"
_registering = threading.Lock()


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Attributes:
        name: onnxruntime's.
        title: for people.
        packages: what to install for it, as a sentence goes on after "install".
        plugin: the Python package that brings it, if it is a plugin.
    """

    name: str
    title: str
    packages: str
    plugin: str | None = None


PROVIDERS: Mapping[Device, Provider] = MappingProxyType(
    {
        "cuda": Provider(
            "CUDAExecutionProvider",
            "CUDA",
            "`pip install 'glm-export[onnxruntime-gpu]'` in place of onnxruntime",
        ),
        "openvino": Provider(
            "OpenVINOExecutionProvider",
            "OpenVINO",
            "`pip install onnxruntime-ep-openvino` beside onnxruntime",
            plugin="onnxruntime_ep_openvino",
        ),
        "webgpu": Provider(
            "WebGpuExecutionProvider",
            "WebGPU",
            "`pip install onnxruntime-ep-webgpu` beside onnxruntime",
            plugin="onnxruntime_ep_webgpu",
        ),
        "directml": Provider(
            "DmlExecutionProvider",
            "DirectML",
            "`pip install onnxruntime-directml` in place of onnxruntime, on Windows",
        ),
        "coreml": Provider(
            "CoreMLExecutionProvider", "CoreML", "onnxruntime on macOS, which has it built in"
        ),
        "qnn": Provider(
            "QNNExecutionProvider",
            "QNN",
            "`pip install onnxruntime-qnn` in place of onnxruntime",
        ),
    }
)


def register(runtime: ModuleType, device: Device) -> None:
    """Make a provider known to onnxruntime, once in a process, whatever thread asks first.

    Raises:
        DeviceError: this onnxruntime does not have it, and no plugin brings it.
    """
    with _registering:
        _register(runtime, PROVIDERS[device])


def _register(runtime: ModuleType, provider: Provider) -> None:
    offered = runtime.get_available_providers()
    if provider.name in offered or find_devices(runtime, provider):
        return
    if provider.plugin is not None:
        try:
            plugin = importlib.import_module(provider.plugin)
            runtime.register_execution_provider_library(provider.name, plugin.get_library_path())
        except ImportError:
            pass
        except Exception as error:  # onnxruntime's own classes share no root but this
            raise DeviceError(
                f"{provider.title} does not start ({first_line(error)}) where it was asked for; "
                f"install {provider.packages} anew, or use --device cpu."
            ) from error
        else:
            if find_devices(runtime, provider):
                return
            raise DeviceError(
                f"{provider.plugin} offers no device of this machine where one was asked for; "
                "use --device cpu."
            )
    raise DeviceError(
        f"this onnxruntime offers {', '.join(offered)} where {provider.name} is expected; "
        f"install {provider.packages}, or use --device cpu."
    )


def find_devices(runtime: ModuleType, provider: Provider) -> list[Any]:
    """The devices that a plugin offers, a CPU first; none if it is built in or not registered."""
    if provider.plugin is None:
        return []
    devices = [device for device in runtime.get_ep_devices() if device.ep_name == provider.name]
    cpu = runtime.OrtHardwareDeviceType.CPU
    return sorted(devices, key=lambda device: device.device.type != cpu)
