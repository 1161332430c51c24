"""The version of ONNX Runtime that a folder needs, compared with the one that is installed."""

import re

from glm_runtime.errors import MissingDependencyError
from glm_runtime.folder.manifest import Manifest


def require_version(manifest: Manifest, installed: str) -> None:
    """Refuse a folder that needs a newer ONNX Runtime.

    Args:
        manifest: manifest of the folder.
        installed: version of the installed ONNX Runtime.

    Raises:
        MissingDependencyError: names both versions.
    """
    if read_version(installed) < read_version(manifest.oldest_onnxruntime):
        raise MissingDependencyError(
            f"onnxruntime {installed} is installed, but this folder needs "
            f"{manifest.oldest_onnxruntime} or later; install it with "
            "`pip install --upgrade onnxruntime`, or onnxruntime-gpu for an NVIDIA GPU."
        )


def read_version(text: str) -> tuple[int, ...]:
    """Return the numbers at the beginning of a version, for example (1, 31, 1)."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()
