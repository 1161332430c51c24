"""Execution providers of ONNX Runtime by device name, and the packages that contain them.

A provider is built into an onnxruntime package, or is a plugin in another Python package.
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
        name: name in ONNX Runtime.
        title: name for people.
        packages: what to install, written so that it can follow the word "install".
        plugin: Python package of a plugin; `None` for a built-in provider.
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
            "`pip install 'onnxruntime-gpu[cuda,cudnn]'` in place of onnxruntime",
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
    """Register a device's provider with ONNX Runtime, once per process; safe to call in threads.

    Raises:
        DeviceError: this onnxruntime does not have the provider, and no plugin provides it.
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
        except Exception as error:  # onnxruntime's classes have no other common root
            raise DeviceError(
                f"{provider.title} does not start ({first_line(error)}); "
                f"install {provider.packages} again, or use the device cpu."
            ) from error
        else:
            if find_devices(runtime, provider):
                return
            raise DeviceError(
                f"{provider.plugin} finds no device on this machine; use the device cpu."
            )
    raise DeviceError(
        f"this onnxruntime offers {', '.join(offered)} where {provider.name} is expected; "
        f"install {provider.packages}, or use the device cpu."
    )


def find_devices(runtime: ModuleType, provider: Provider) -> list[Any]:
    """Return the devices of a registered plugin, a CPU first; none for a built-in provider."""
    if provider.plugin is None:
        return []
    devices = [device for device in runtime.get_ep_devices() if device.ep_name == provider.name]
    cpu = runtime.OrtHardwareDeviceType.CPU
    return sorted(devices, key=lambda device: device.device.type != cpu)
