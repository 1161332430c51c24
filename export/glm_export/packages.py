"""Checks that optional packages are installed, without importing them."""

import importlib.util

from glm_export.errors import MissingPackageError

_EXPORT_PACKAGES = ("torch", "onnx", "onnx_ir", "onnxscript")


def require_export_packages() -> None:
    """Check that the packages of an export are installed.

    Raises:
        MissingPackageError: names the first package and the extra that brings it.
    """
    for name in _EXPORT_PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise MissingPackageError(
                f"{name} is not installed; pip install 'glm-export[export,onnxruntime]'."
            )


def require_onnxruntime() -> None:
    """Check early that ONNX Runtime is installed.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingPackageError(
            "onnxruntime is not installed; pip install 'glm-export[onnxruntime]' (or "
            "[onnxruntime-gpu]); only an export with --verify tensors or none, and without "
            "--conformance, works without it."
        )


def require_plot_packages() -> None:
    """Check early that matplotlib is installed.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError(
            "matplotlib is not installed; pip install 'glm-export[plot]', or leave the pictures "
            "out."
        )
