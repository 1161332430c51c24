"""CUDA: provider options, libraries that must be loaded first, and what is missing of them."""

import contextlib
import ctypes
import io
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType

# Float32 products stay float32: ONNX Runtime would use TF32, which has 10 bits of mantissa. Most
# products of a folder for CUDA are float16 or int4, so this costs little. The arena grows by what
# is needed, since doubling it would take gigabytes that the KV cache needs; the cache's own buffers
# are outside of the arena, so that a limit of the arena would not bound them, and none is set.
OPTIONS: Mapping[str, str] = MappingProxyType(
    {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
)
_INSTALL = "`pip install 'onnxruntime-gpu[cuda,cudnn]'`"
_PROVIDER_LIBRARY = "libonnxruntime_providers_cuda.so"
_MISSING = re.compile(r"(\S+): cannot open shared object file")


def preload_libraries(runtime: ModuleType) -> None:
    """Load CUDA's and cuDNN's libraries from NVIDIA's Python packages, where they are installed.

    ONNX Runtime searches only the system's folders by itself.
    """
    preload = getattr(runtime, "preload_dlls", None)
    if preload is None:
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        preload()  # it prints what it does not find, which `explain_failure` says better


def explain_failure(runtime: ModuleType, reason: str) -> str:
    """Return why CUDA does not start, and what to do, for the middle of a sentence."""
    missing = find_missing_library(Path(getattr(runtime, "__file__", "")).parent / "capi")
    if missing is None:
        return f"({reason}); check `nvidia-smi` and the versions of CUDA and cuDNN"
    if missing.startswith("libcuda.so"):
        return f"({missing} is missing); install the driver of the NVIDIA GPU"
    return f"({missing} is missing); install CUDA's libraries with {_INSTALL}"


def find_missing_library(folder: Path) -> str | None:
    """Return the name of the first library that ONNX Runtime's CUDA provider does not find.

    Args:
        folder: the folder of onnxruntime's libraries.
    """
    path = folder / _PROVIDER_LIBRARY
    if not path.is_file():
        return None
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        found = _MISSING.match(str(error))
        return found[1] if found else None
    return None
